"""Uploads a model's folder to the Hub, after selecting and cleaning its files."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, try_to_load_from_cache
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    OfflineModeIsEnabled,
)
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError, safe_open

from lrc.config.run_record import RUN_FILE, read_run
from lrc.models.fingerprint import CONFIG, TOKENIZER_FILES, VOCABULARIES
from lrc.models.loading import check_tokens, load_config, load_tokenizer
from lrc.models.weights import ADAPTER_CONFIG, ADAPTER_WEIGHTS, INDEX, WeightFiles
from lrc.reporting.dataset_card import dataset_card
from lrc.reporting.model_card import CARD, adapter_settings, base_name, model_card
from lrc.reporting.scrub import refuse_leaks, refuse_leaks_in, scrub
from lrc.runtime.errors import ModelError, OutputError, first_line
from lrc.runtime.json_objects import read_json
from lrc.runtime.library_errors import describe_error
from lrc.runtime.progress import notify
from lrc.runtime.system import expand_home
from lrc.runtime.translation import _

# From these files, values are removed if their key names a secret, or if they look like one.
BY_KEY = (ADAPTER_CONFIG, RUN_FILE)
# From these, only if they look like one: the model needs values of keys such as `bos_token`.
BY_VALUE = (CONFIG, "generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
CLEANED = (*BY_KEY, *BY_VALUE)
# The files at the top of a repository that transformers and PEFT load a model from.
LOADED = (ADAPTER_CONFIG, CONFIG, "generation_config.json", *TOKENIZER_FILES)
WEIGHTS = re.compile(r"(model|adapter_model|pytorch_model)(-\d+-of-\d+)?\.(safetensors|bin)(\.index\.json)?")
TEXTS = (".json", ".jinja", ".txt", ".md")  # suffixes of the files that are searched for secrets before the upload
_USUAL_METADATA = ("format", "total_size", "total_parameters")
REASONS = {
    401: _("the Hub rejected the token, or there is none; run `hf auth login`"),
    403: _("the token has no write access there; use one that has, or another name"),
    404: _("the Hub does not know it; check the name and the token"),
}
PUBLIC = _("{repo_id}: is public; make it private there, or choose another name")


@contextmanager
def staged(folder: Path, repo_id: str) -> Iterator[Path]:
    """Yield a temporary folder with exactly the files that would be uploaded.

    These are weights in safetensors, configuration, tokenizer, `lrc_run.json` without local paths and secrets, and the
    model card. It is an allow-list, so that data, optimizer states, pickles and checkpoints are never uploaded.

    Args:
        folder: of an adapter or a merged model.
        repo_id: USER/NAME on the Hub.

    Raises:
        ModelError: the folder does not hold a model, or it is damaged.
        OutputError: the name is invalid, or a file would reveal a token or a local path.
    """
    _check_name(repo_id)
    names = [*_weight_files(folder), *CLEANED, *(n for n in TOKENIZER_FILES if n not in CLEANED)]
    _refuse_tokens(folder)
    if is_adapter(folder):
        _warn_of_local_base(folder)
    with TemporaryDirectory(prefix="lrc-publish-") as temporary:
        stage = Path(temporary)
        for name in dict.fromkeys(names):
            # The run file of a checkpoint may be that of its run's folder.
            if name in CLEANED and ((folder / name).is_file() or (name == RUN_FILE and read_run(folder))):
                (stage / name).write_text(_clean(folder, name), encoding="utf-8")
            elif (folder / name).is_file():
                _put(folder / name, stage / name)
        (stage / CARD).write_text(str(model_card(folder, repo_id)), encoding="utf-8")
        texts = [file for file in sorted(stage.iterdir()) if file.suffix in TEXTS]
        vocabularies = [file for file in texts if file.name in VOCABULARIES]
        paths = _private_paths(folder)
        refuse_leaks([file for file in texts if file not in vocabularies], paths)
        refuse_leaks(vocabularies, tuple(one for one in paths if len(Path(one).parts) > 2))  # `/root` may be a token
        for file in stage.glob("*.safetensors"):
            _check_metadata(file, paths)
        yield stage


def _check_metadata(file: Path, private: tuple[str, ...]) -> None:
    """Search what is written beside the tensors of a file, and name it; safetensors and PEFT write only the format.

    Raises:
        OutputError: it holds a secret or a private path.
        ModelError: it is damaged.
    """
    try:
        with safe_open(file, "np") as tensors:
            metadata = {key: text for key, text in (tensors.metadata() or {}).items() if key not in _USUAL_METADATA}
    except (SafetensorError, ValueError) as error:
        text = _("{path}: damaged ({reason}); download the file again")
        raise ModelError(text.format(path=file.name, reason=describe_error(error))) from error
    if not metadata:
        return
    refuse_leaks_in(file.name, "\n".join(metadata.values()), private)
    text = _("{file}: has a note on its tensors, which is published, too: {keys}")
    notify(text.format(file=file.name, keys=tuple(metadata)))


def _warn_of_local_base(folder: Path) -> None:
    base, on_hub = base_name(read_run(folder), adapter_settings(folder))
    if not on_hub:
        text = _(
            "{folder}: its base model, {base}, is a folder of this machine and no name on the Hub; nobody else can use "
            "the adapter without it: publish the model that `lrc merge` makes, with --merged"
        )
        notify(text.format(folder=folder, base=base or "?"))


def _put(file: Path, place: Path) -> None:
    """Link a file, which may be large, to another place; copy it if links are not permitted, as often on Windows."""
    try:
        place.symlink_to(file.resolve())
    except OSError:
        shutil.copyfile(file, place)


def publish_folder(folder: Path, repo_id: str, private: bool, endpoint: str | None = None) -> str:
    """Upload an adapter or a merged model with its card; huggingface_hub finds the token.

    It can be repeated: files that the Hub has already are not sent again. Weights, configurations and tokenizer files
    of an earlier model of lrc's there, which would be loaded in place of these or with them, are removed by the same
    commit.

    Args:
        folder: of an adapter or a merged model.
        repo_id: USER/NAME on the Hub; the repository is created if it does not exist.
        private: create a private repository; an existing public one is refused.
        endpoint: the address of the Hub; None is huggingface_hub's default.

    Returns:
        The address of the repository.

    Raises:
        ModelError: the folder does not hold a model.
        OutputError: the Hub refuses, cannot be reached, or the upload was interrupted; or the repository holds a model
            that lrc has not published.
    """
    api = HfApi(endpoint=endpoint)
    with staged(folder, repo_id) as stage, _explain_failures(repo_id, api.endpoint):
        operations = [CommitOperationAdd(file.name, file) for file in sorted(stage.iterdir())]
        return _commit(api, repo_id, "model", operations, private=private)


def publish_dataset_card(manifest: Path, repo_id: str, private: bool, endpoint: str | None = None) -> str:
    """Upload the card of a dataset, and nothing else; see `dataset_card.dataset_card`.

    Args:
        manifest: the `*_manifest.json` that `lrc convert` wrote.
        repo_id, private, endpoint: see `publish_folder`.

    Returns:
        The address of the repository.

    Raises:
        DataError: the file is not a manifest.
        OutputError: the Hub refuses, cannot be reached, or the name is invalid.
    """
    _check_name(repo_id)
    api, card = HfApi(endpoint=endpoint), str(dataset_card(manifest, repo_id))
    with _explain_failures(repo_id, api.endpoint):
        return _commit(api, repo_id, "dataset", [CommitOperationAdd(CARD, card.encode())], private=private)


def _commit(api: HfApi, repo_id: str, kind: str, operations: list[CommitOperationAdd], *, private: bool) -> str:
    """Create a repository if there is none, and change it by a single commit: one that is interrupted changes nothing.

    Args:
        api: the Hub's client.
        repo_id: USER/NAME.
        kind: `model` or `dataset`; in a repository of a model, what belongs to an earlier one is removed.
        operations: the files to add.
        private: refuse a public repository.

    Returns:
        The address of the repository.
    """
    url = api.create_repo(repo_id, private=private or None, exist_ok=True, repo_type=kind)
    info = api.repo_info(url.repo_id, repo_type=kind)
    if private and not info.private:
        raise OutputError(PUBLIC.format(repo_id=repo_id))
    added = {operation.path_in_repo for operation in operations}
    names = [file.rfilename for file in getattr(info, "siblings", None) or ()] if kind == "model" else []
    stale = [name for name in names if name not in added and (name in LOADED or WEIGHTS.fullmatch(name))]
    if stale and RUN_FILE not in names:
        text = _(
            "{repo_id}: holds another model, which lrc has not published ({files}) and which would be loaded with this "
            "one, or in place of it; choose another name, or delete these files there"
        )
        raise OutputError(text.format(repo_id=repo_id, files=tuple(stale)))
    if stale:
        text = _("{repo_id}: removes files of the model that was published there before: {files}")
        notify(text.format(repo_id=repo_id, files=tuple(stale)))
    removed = [CommitOperationDelete(path_in_repo=name) for name in stale]
    api.create_commit(url.repo_id, [*operations, *removed], commit_message="Publish with lrc", repo_type=kind)
    return str(url)


def _check_name(repo_id: str) -> None:
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        text = _("{repo_id}: cannot be a name on the Hub; write USER/NAME, of letters, digits, `-`, `_` and `.`")
        raise OutputError(text.format(repo_id=repo_id)) from error


def _weight_files(folder: Path) -> list[str]:
    if is_adapter(folder):
        if not (folder / ADAPTER_WEIGHTS).is_file():
            text = _("{folder}: no {file}; only safetensors are published")
            raise ModelError(text.format(folder=folder, file=ADAPTER_WEIGHTS))
        return [ADAPTER_WEIGHTS]
    if not (folder / CONFIG).is_file():
        text = _("{folder}: no {adapter_config} and no {config}; name an adapter or a merged model")
        raise ModelError(text.format(folder=folder, adapter_config=ADAPTER_CONFIG, config=CONFIG))
    weights = WeightFiles(folder)
    if any(not file.endswith(".safetensors") for file in weights.files):
        raise ModelError(_("{folder}: has .bin weights; only safetensors are published").format(folder=folder))
    return [*weights.files, *([INDEX] if weights.sharded else [])]


def _refuse_tokens(folder: Path) -> None:
    """Refuse a tokenizer with ids beyond the embeddings of its model, if that is on this machine."""
    name = str(adapter_settings(folder).get("base_model_name_or_path") or "") if is_adapter(folder) else str(folder)
    config: Any = Path(name) / CONFIG
    if not config.is_file():
        try:
            config = try_to_load_from_cache(name, CONFIG)
        except HFValidationError:
            return
    if not isinstance(config, (str, Path)) or not any((folder / one).is_file() for one in VOCABULARIES):
        return
    try:
        tokenizer, model = load_tokenizer(str(folder)), load_config(str(Path(config).parent))
        rows = model.get_text_config().vocab_size
    except (ModelError, AttributeError):  # it needs remote code, or its configuration has no vocab_size
        return
    check_tokens(tokenizer, rows)


def is_adapter(folder: Path) -> bool:
    """Whether a folder has an adapter rather than a whole model."""
    return (folder / ADAPTER_CONFIG).is_file()


def _clean(folder: Path, name: str) -> str:
    run = read_run(folder)
    found = asdict(run) if run and name == RUN_FILE else read_json(folder / name)
    settings = scrub(found, by="key" if name in BY_KEY else "value")
    if gone := list(_left_out(found, settings)):
        notify(_("{file}: left out {keys}, which looks like a secret").format(file=name, keys=tuple(gone)))
    base = base_name(run, adapter_settings(folder))[0]
    if base and name == ADAPTER_CONFIG:
        settings["base_model_name_or_path"] = base
    elif base and name == RUN_FILE and "model_name_or_path" in settings.get("recipe", {}):
        settings["recipe"]["model_name_or_path"] = base
    return json.dumps(settings, ensure_ascii=False, indent=2) + "\n"


def _left_out(before: Any, after: Any, key: str = "") -> Iterator[str]:
    """The keys of the values that were removed from a JSON value."""
    if isinstance(before, dict):
        for name, part in before.items():
            place = f"{key}.{name}" if key else name
            yield from _left_out(part, after[name], place) if name in after else [place]
    elif isinstance(before, list):
        pairs = zip(before, after, strict=False)
        yield from [key] if len(before) != len(after) else [found for pair in pairs for found in _left_out(*pair, key)]


def _private_paths(folder: Path) -> tuple[str, ...]:
    paths = {str(path) for path in (folder.resolve().parent, Path(expand_home("~")), Path.cwd())}
    return tuple(sorted(path for path in paths if len(Path(path).parts) > 1))


@contextmanager
def _explain_failures(repo_id: str, endpoint: str) -> Iterator[None]:
    """Turn the errors of an upload in the block into one line, which never contains the token."""
    try:
        yield
    except OfflineModeIsEnabled as error:
        text = _("{repo_id}: HF_HUB_OFFLINE is set; unset it to publish")
        raise OutputError(text.format(repo_id=repo_id)) from error
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        text = _("{repo_id}: {reason}")
        raise OutputError(text.format(repo_id=repo_id, reason=_reason(error, endpoint))) from error


def _reason(error: BaseException, endpoint: str) -> str:
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        text = REASONS.get(status, _("the Hub answered {status} ({reason}); try again later"))
        return text.format(status=status, reason=_clean_line(error))
    if isinstance(error, HTTPError):
        text = _("the connection to {endpoint} failed ({reason}); repeat the command to resume")
        return text.format(endpoint=endpoint, reason=_clean_line(error))
    if isinstance(error, RuntimeError) and error.__cause__ is not None:  # raised for one of several files
        return _reason(error.__cause__, endpoint)
    return _("the upload failed ({reason}); repeat the command to resume").format(reason=_clean_line(error))


def _clean_line(error: BaseException) -> str:
    """The first line of the Hub's error, without the request id."""
    return re.sub(r"\s*\(Request ID:.*", "", first_line(error))
