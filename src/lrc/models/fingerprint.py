"""Finds a base model, and identifies it by fingerprints of its files.

An adapter can be loaded on every base of the same shapes, but is correct on one only. So training records fingerprints
of the base next to the adapter, and merging and answering compare them.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from lrc.models.content_hash import contents_sum
from lrc.models.stored_quantization import StoredQuantization, vectors_sum
from lrc.models.weights import BIN_INDEX, INDEX, WeightFiles
from lrc.runtime.errors import ModelError, first_line
from lrc.runtime.hub_connection import go_offline_if_alone
from lrc.runtime.json_objects import read_json
from lrc.runtime.progress import waiting
from lrc.runtime.translation import _

CONFIG = "config.json"
# The files of which a tokenizer consists, whatever its kind.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
VOCABULARIES = TOKENIZER_FILES[:7]
VOLATILE = {"_name_or_path", "transformers_version"}  # keys of config.json that do not change the model
SAMPLES, SAMPLE_BYTES = 16, 64


def find_base(name: str, revision: str | None = None, flag: str = "--base-model") -> Path:
    """The folder of a base model: `name` itself, or the Hub client's cache, into which it is downloaded if need be.

    Args:
        name: a folder, or a name on the Hub.
        revision: a branch, tag or commit on the Hub.
        flag: the flag or the recipe's key by which the base was named, for messages.

    Raises:
        ModelError: there is no such folder, it holds no model, or the model cannot be downloaded.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if folder.is_absolute() or name.startswith(".") or name.count("/") > 1:
            raise ModelError(
                _("{name}: no such folder; say where the base model is with {flag}").format(name=name, flag=flag)
            )
        go_offline_if_alone(name)
        folder = _fetch(name, revision, flag)
    if not (folder / CONFIG).is_file():
        raise ModelError(_("{name}: no {config}; name a folder that holds a model").format(name=name, config=CONFIG))
    return folder


def fingerprint_base(name: str, revision: str | None = None, flag: str = "--base-model") -> dict[str, Any]:
    """What to record of a base model.

    `contents_sha256` covers all of every tensor; see `content_hash`. `weights_sha256`, which is all that older runs
    have, covers 16 evenly spaced samples of 64 bytes of each: it may miss a change of a few values. Neither depends on
    how the tensors are distributed over files, nor on the files' format. `config_sha256` leaves out the keys in
    `VOLATILE`; `tokenizer_sha256` covers the vocabulary only.

    Args:
        name: a folder, or a name on the Hub.
        revision: a branch, tag or commit on the Hub.
        flag: see `find_base`.

    Returns:
        name (of a folder, the last part of its path), revision (on the Hub, the commit), config_sha256, weights_sha256,
        contents_sha256, and tokenizer_sha256 (None if the folder has no tokenizer). If the weights are quantized on the
        disk, also `quantized`: how, and what identifies the model that they were made from.

    Raises:
        ModelError: there is no such model, or its files are damaged.
    """
    folder = find_base(name, revision, flag)
    local = Path(name).expanduser().is_dir()
    return {
        "name": folder.resolve().name if local else name,
        # The Hub's client keeps a commit's files in snapshots/<commit>.
        "revision": folder.name if folder.parent.name == "snapshots" else revision,
        **_sums(folder),
        "contents_sha256": contents_sum(WeightFiles(folder)),
        **_describe_quantization(folder),
    }


def _describe_quantization(folder: Path) -> dict[str, Any]:
    settings = read_json(folder / CONFIG)
    stored = StoredQuantization.of(settings)
    if stored is None:
        return {}
    found = {"method": str(stored), "model_type": settings.get("model_type"), **vectors_sum(WeightFiles(folder))}
    return {"quantized": found}


def verify_base(recorded: dict[str, Any], folder: Path, flag: str = "--base-model") -> None:
    """Compare a base model with what an adapter's run recorded; what was not recorded is not compared.

    If the recorded base was quantized on the disk, the model that it was made from is accepted, too: its norms and
    biases, which quantization leaves unchanged, have to be the same. Of a method that rescales there is none.

    Args:
        recorded: what `fingerprint_base` returned.
        folder: the base model.
        flag: the flag by which the base was named, for messages.

    Raises:
        ModelError: configuration, weights or tokenizer differ, with a finding for each.
    """
    if "quantized" in recorded and StoredQuantization.of(read_json(folder / CONFIG)) is None:
        _verify_original(recorded, folder, flag)
        return
    found = _sums(folder)
    origin = recorded.get("name") or _("another model")
    if revision := recorded.get("revision"):
        origin = _("{name} at {revision}").format(name=origin, revision=revision)
    parts = [
        part
        for part in ("config", "weights", "tokenizer")
        if recorded.get(f"{part}_sha256") and found[f"{part}_sha256"] not in (None, recorded[f"{part}_sha256"])
    ]
    whole = recorded.get("contents_sha256")
    if whole and "weights" not in parts and contents_sum(WeightFiles(folder)) != whole:
        parts.append("weights")
    if parts:
        raise ModelError(
            *(
                _(
                    "{folder}: not the {part} of the base model that the adapter was trained on ({origin}); "
                    "pass that one as {flag}"
                ).format(folder=folder, part=part, origin=origin, flag=flag)
                for part in parts
            )
        )


def _verify_original(recorded: dict[str, Any], folder: Path, flag: str) -> None:
    known = recorded["quantized"]
    if StoredQuantization(known["method"].partition(",")[0]).rescales:
        text = _(
            "{folder}: the adapter was trained on {get} ({method}), whose layers have rescaled inputs, and fits no "
            "other model; answer with --model {get} --adapter"
        )
        raise ModelError(text.format(folder=folder, get=recorded.get("name"), method=known["method"]))
    found = {"model_type": read_json(folder / CONFIG).get("model_type")}
    found |= vectors_sum(WeightFiles(folder), known["dtype"])
    if any(found[key] != known[key] for key in found):
        raise ModelError(
            _(
                "{folder}: not the model of which {get} was made, on which the adapter was trained: its "
                "norms and biases differ; pass that one, in 16 bits, as {flag}"
            ).format(folder=folder, get=recorded.get("name"), flag=flag)
        )


def _sums(folder: Path) -> dict[str, str | None]:
    return {
        "config_sha256": _config_sum(folder / CONFIG),
        "weights_sha256": _weights_sum(WeightFiles(folder)),
        "tokenizer_sha256": _tokenizer_sum(folder),
    }


def _config_sum(path: Path) -> str:
    config = {key: value for key, value in read_json(path).items() if key not in VOLATILE}
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def _weights_sum(weights: WeightFiles) -> str:
    total = hashlib.sha256()
    for name, spec in sorted(weights.specs.items()):
        total.update(f"{name} {spec.dtype} {spec.shape}\n".encode())
        if spec.nbytes <= SAMPLES * SAMPLE_BYTES:
            starts, length = [0], spec.nbytes
        else:
            last = spec.nbytes - SAMPLE_BYTES
            starts, length = [last * i // (SAMPLES - 1) for i in range(SAMPLES)], SAMPLE_BYTES
        for start in starts:
            total.update(weights.raw(name, start, length).numpy().tobytes())
    return total.hexdigest()


def _tokenizer_sum(folder: Path) -> str | None:
    # Later files only repeat the vocabulary of earlier ones, and a cache may lack them.
    path = next((folder / name for name in VOCABULARIES if (folder / name).is_file()), None)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path else None


def _fetch(name: str, revision: str | None, flag: str) -> Path:
    files = [CONFIG, "generation_config.json", *TOKENIZER_FILES]
    try:
        with waiting(_("fetching {name}").format(name=name)):
            folder = snapshot_download(name, revision=revision, allow_patterns=[*files, "model*.safetensors", INDEX])
            if not any(Path(folder).glob("model*.safetensors")):
                folder = snapshot_download(name, revision=revision, allow_patterns=["pytorch_model*.bin", BIN_INDEX])
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise ModelError(
            _(
                "{name}: no such folder, and not among the models fetched before; go online once, or say "
                "where the base model is with {flag}"
            ).format(name=name, flag=flag)
        ) from error
    except (HFValidationError, HTTPError, OSError) as error:
        reason = first_line(error)
        raise ModelError(
            _("{name}: cannot be fetched from the Hub ({reason}); try {flag} FOLDER").format(
                name=name, reason=reason, flag=flag
            )
        ) from error
    return Path(folder)
