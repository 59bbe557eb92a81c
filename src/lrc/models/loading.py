"""Loads configurations, tokenizers and base models, in the same way for all commands."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, StrictDataclassError
from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    SentencePieceBackend,
)
from transformers.utils import cached_file
from transformers.utils.logging import disable_progress_bar

from lrc.models.lack_of_memory import CLOSE_OTHERS, Room, first_conversion_error, free_in_words
from lrc.models.placement import Weights
from lrc.models.stored_quantization import CURE, QUANTIZED_PARTS, StoredQuantization, compute_in
from lrc.runtime.errors import ModelError, first_line
from lrc.runtime.exit_status import is_first
from lrc.runtime.hub_connection import go_offline_if_alone
from lrc.runtime.progress import is_quiet, notify, waiting
from lrc.runtime.translation import _


def load_tokenizer(name: str, revision: str = "main", *, trust_remote_code: bool = False) -> Any:
    """Load a tokenizer that gives the ids with which the base model was trained.

    transformers converts a `LlamaTokenizer` to BPE, which breaks ties between pieces of equal score differently than
    sentencepiece. So if a folder has a sentencepiece model and no `tokenizer.json`, sentencepiece itself is used.

    Args:
        name: a folder, or a name on the Hub.
        revision: a branch, tag or commit on the Hub.
        trust_remote_code: run code that comes with the tokenizer.

    Raises:
        ModelError: there is no tokenizer at `name`.
    """
    with loading_errors(name, "tokenizer"):
        cls = SentencePieceBackend if _needs_sentencepiece(name, revision) else AutoTokenizer
        return cls.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)


def tokenizer_backend(tokenizer: Any) -> str:
    """The library that makes the ids: `sentencepiece` or `tokenizers`."""
    return "sentencepiece" if isinstance(tokenizer, SentencePieceBackend) else "tokenizers"


def load_config(name: str, revision: str = "main", *, trust_remote_code: bool = False) -> Any:
    """Load a model's configuration.

    Raises:
        ModelError: there is none at `name`.
    """
    with loading_errors(name, _("model")):
        return AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)


def positions(config: Any) -> int | None:
    """A model's `max_position_embeddings`; None if its configuration has none."""
    found: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
    return found


def load_base(
    name: str,
    *,
    dtype: torch.dtype | str = "auto",
    revision: str = "main",
    quantization: BitsAndBytesConfig | None = None,
    attn_implementation: str | None = None,
    device_map: Any = None,
    trust_remote_code: bool = False,
    cure: str = CLOSE_OTHERS,
) -> Any:
    """Load a causal language model, preferably from safetensors; `.bin` files only by the weights-only unpickler.

    Args:
        name: a folder, or a name on the Hub.
        dtype: of the weights, or if they are quantized, of the computation.
        revision: a branch, tag or commit on the Hub.
        quantization: how to quantize the weights; None loads them as they are on the disk, which is also done if they
            are quantized in this way already.
        attn_implementation: as in transformers.
        device_map: as in transformers.
        trust_remote_code: run code that comes with the model.
        cure: what to do if memory runs out.

    Raises:
        ModelError: there is no such model, its files cannot be read, or they are quantized in another way.
        MachineError: memory ran out.
    """
    config = load_config(name, revision, trust_remote_code=trust_remote_code)
    stored = StoredQuantization.of(config)
    given: dict[str, Any] = {}
    if stored is not None:
        stored.require(name)
        if quantization is not None:
            stored.agree(name, bool(quantization.load_in_4bit), bool(quantization.load_in_8bit))
        if (how := stored.loading) is not None:
            given["quantization_config"] = how
    elif quantization is not None:
        given["quantization_config"] = quantization  # passing None would override that of the files
    wanted: torch.dtype = getattr(torch, stored_dtype(config) or "float32") if dtype == "auto" else _as_dtype(dtype)

    def count() -> int:
        folder = Path(cached_file(name, "config.json", revision=revision)).parent
        return sum(part.nbytes for part in Weights(config, wanted, quantization, folder).parts())

    room = Room(name, cure, free_in_words(device_map), count)
    loading = loading_errors(name, _("model"), stored, attn_implementation, room)
    with loading, warnings.catch_warnings(), _without_report():
        # That keys of StoredQuantization.loading are used together with the configuration of the files.
        warnings.filterwarnings("ignore", "You passed `quantization_config`")
        model, found = AutoModelForCausalLM.from_pretrained(
            name,
            dtype=dtype,
            revision=revision,
            attn_implementation=attn_implementation,
            device_map=device_map,
            trust_remote_code=trust_remote_code,
            weights_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, in a line
            **given,
        )
    _refuse_unfit(name, stored, **{kind: found[f"{kind}_keys"] for kind in ("missing", "unexpected", "mismatched")})
    if stored is not None:
        stored.require_quantized(name, model)
        with room.explained():
            stored.finish_dequantized(name, model, wanted, tell=is_first())
        if dtype != "auto":
            compute_in(model, wanted)
    _keep_trainable(model)
    return model


def _as_dtype(dtype: torch.dtype | str) -> torch.dtype:
    found: torch.dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    return found


def _refuse_unfit(
    name: str,
    stored: StoredQuantization | None,
    missing: Collection[str],
    unexpected: Collection[str],
    mismatched: Collection[tuple[str, Any, Any]],
) -> None:
    """Refuse files that do not hold the model's weights: transformers would make up the rest at random.

    Raises:
        ModelError: weights are missing, or have other shapes.
    """
    if packed := sorted(key for key in unexpected if QUANTIZED_PARTS.search(key)):
        text = _(
            "{name}: its weights are quantized ({first}), and its config.json does not say how: it has no "
            "quantization_config; download it again, or name another model"
        )
        if stored is not None:
            text = _(
                "{name}: its config.json says that weights are quantized ({stored}), which {first} does not belong to; "
                "download its files again, or name another model"
            )
        raise ModelError(text.format(name=name, stored=stored, first=packed[0]))
    if mismatched:
        key, found, expected = min(mismatched)
        text = _(
            "{name}: its files do not fit its config.json: {key} has shape {found}, expected {expected}; download them "
            "again, or name another model"
        )
        raise ModelError(text.format(name=name, key=key, found=str(tuple(found)), expected=str(tuple(expected))))
    if missing:
        text = _(
            "{name}: its files lack {count} of the model's weights, such as {first}; download them again, or name "
            "another model"
        )
        raise ModelError(text.format(name=name, count=len(missing), first=min(missing)))
    if unexpected and is_first():
        text = _("{name}: {count} weights of its files are not used, such as {first}")
        notify(text.format(name=name, count=len(unexpected), first=min(unexpected)))


@contextmanager
def _without_report() -> Iterator[None]:
    """Keep transformers from printing a table of missing and unused weights, of which lrc has lines of its own."""

    def is_other(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def stored_dtype(config: Any) -> str | None:
    """The dtype of a model's weights on the disk, such as `bfloat16`; None if its configuration does not say."""
    dtype = getattr(config.get_text_config(), "dtype", None) or getattr(config, "dtype", None)
    return str(dtype).removeprefix("torch.") if dtype else None


def check_size(tokenizer: Any, expected: int | None) -> None:
    """Refuse a tokenizer whose size is not the recipe's `expected_vocab_size`.

    Raises:
        ModelError: the sizes differ.
    """
    if expected is not None and len(tokenizer) != expected:
        raise ModelError(
            _(
                "tokenizer: has {count} tokens, expected_vocab_size is {expected}; use the tokenizer "
                "that belongs to the base model, or correct the recipe"
            ).format(count=len(tokenizer), expected=expected)
        )


def check_vocabulary(tokenizer: Any, model: Any) -> None:
    """Refuse a tokenizer with ids beyond the model's embeddings, which lrc never resizes.

    Raises:
        ModelError: there are more ids than rows.
    """
    weight = model.get_input_embeddings().weight
    # Under ZeRO-3 the tensor itself is empty.
    check_tokens(tokenizer, getattr(weight, "ds_shape", weight.shape)[0])


def check_tokens(tokenizer: Any, rows: int) -> None:
    """Refuse a tokenizer with ids beyond embeddings of `rows` rows.

    Raises:
        ModelError: there are more ids than rows.
    """
    size = max(len(tokenizer), max(tokenizer.get_vocab().values()) + 1)
    if size > rows:
        raise ModelError(
            _(
                "tokenizer: has {size} tokens, the model's embeddings have {rows} rows; use the "
                "tokenizer and the base model of the same release"
            ).format(size=size, rows=rows)
        )


def _keep_trainable(model: Any) -> None:
    """Keep bitsandbytes from repacking 4-bit weights in the first evaluation on a CPU with AVX-512 bfloat16.

    Repacked weights have no backward: training would silently continue with wrong gradients.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _needs_sentencepiece(name: str, revision: str) -> bool:
    def find(file: str) -> str | None:
        found: str | None = cached_file(
            name,
            file,
            revision=revision,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_gated_repo=False,
        )
        return found

    settings = find("tokenizer_config.json")
    if find("tokenizer.json") or not find("tokenizer.model") or settings is None:
        return False
    return str(json.loads(Path(settings).read_text(encoding="utf-8")).get("tokenizer_class")).startswith(
        "LlamaTokenizer"
    )


def silence_bars() -> None:
    """Turn off transformers' progress bars, except those of downloads."""
    wanted = not (are_progress_bars_disabled() or is_quiet())
    disable_progress_bar()  # the Hub's as well
    if wanted:
        enable_progress_bars()


@contextmanager
def loading_errors(
    name: str,
    what: str,
    stored: StoredQuantization | None = None,
    attention: str | None = None,
    room: Room | None = None,
) -> Any:
    """Turn the many ways in which loading in the block fails into one line.

    Args:
        name: what is loaded: a folder, or a name on the Hub.
        what: its kind: model, tokenizer or adapter.
        stored: how its weights are quantized on the disk.
        attention: the `attn_implementation` that was asked for.
        room: what to say if memory runs out; None has no more to say than that it did.

    Raises:
        ModelError: it cannot be loaded.
        MachineError: memory ran out.
    """
    if not name:
        raise ModelError(_("no {what} was named; give model_name_or_path").format(what=what))
    silence_bars()
    go_offline_if_alone(name)
    try:
        with waiting(_("loading the {what} {name}").format(what=what, name=name)), (room or Room(name)).explained():
            yield
    except (HFValidationError, LocalEntryNotFoundError, OSError) as error:
        if "Repo id must" in str(error):  # neither a folder nor a valid name on the Hub
            raise ModelError(
                _("{name}: no such folder; give one that holds a model, or a name on the Hub").format(name=name)
            ) from error
        raise ModelError(
            _("{name}: no {what} can be read here ({reason}); give a folder, or a name on the Hub").format(
                name=name, what=what, reason=first_line(error)
            )
        ) from error
    except (
        *(ValueError, KeyError, RuntimeError, ImportError, TypeError, AttributeError, AssertionError, ArithmeticError),
        *(SafetensorError, UnpicklingError, StrictDataclassError),
    ) as error:
        if "trust_remote_code" in str(error):
            raise ModelError(
                _(
                    "{name}: its {what} comes with code, which runs in training only, and only where the "
                    "recipe has trust_remote_code: true; choose a base that transformers supports"
                ).format(name=name, what=what)
            ) from error
        raise _explain_failure(name, what, error, stored, attention) from error
    except Exception as error:
        if type(error) is not Exception:  # tokenizers raises the bare class
            raise
        raise _explain_failure(name, what, error) from error


def _explain_failure(
    name: str, what: str, error: Exception, stored: StoredQuantization | None = None, attention: str | None = None
) -> ModelError:
    reason = first_conversion_error(error) or first_line(error)
    if attention not in (None, "sdpa", "eager") and isinstance(error, (ImportError, ValueError)):
        text = _("{name}: attn_implementation {attention} cannot be used here ({reason}); leave it out")
        return ModelError(text.format(name=name, attention=attention, reason=reason))
    if stored is not None and stored.method != "bitsandbytes":
        text = _(
            "{name}: its weights are quantized ({stored}), and cannot be loaded here ({reason}); install what it asks "
            "for, {cure}"
        )
        return ModelError(text.format(name=name, stored=stored, reason=reason, cure=CURE.format(bits=4)))
    return ModelError(
        _("{name}: its {what} cannot be loaded ({reason}); download its files again, or name another").format(
            name=name, what=what, reason=reason
        )
    )
