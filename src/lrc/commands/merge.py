"""`lrc merge`: merges an adapter and its base into an ordinary model folder, and verifies it."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from lrc.config.run_record import RUN_FILE, read_run
from lrc.models.adapter import read_adapter_config
from lrc.models.fingerprint import (
    CONFIG,
    TOKENIZER_FILES,
    VOCABULARIES,
    find_base,
    fingerprint_base,
    read_json,
    verify_base,
)
from lrc.models.loading import check_tokens, load_config, load_tokenizer
from lrc.models.merging.logit_check import compare_logits
from lrc.models.merging.tensor_sources import NotStreamed, StreamingMerge
from lrc.models.merging.writing import float32_bytes, write_streamed, write_whole
from lrc.models.stored_quantization import StoredQuantization
from lrc.models.weights import INDEX, WeightFiles
from lrc.runtime.disk import convert_disk_errors
from lrc.runtime.errors import MachineError, ModelError, OutputError, RecipeError
from lrc.runtime.exit_status import is_step
from lrc.runtime.findings import print_lines, print_next
from lrc.runtime.finished_outputs import DONE, content_of, is_finished, key_of, refuse_other_output, remember
from lrc.runtime.memory import available_memory, format_size
from lrc.runtime.outputs import checksum, is_in, new_folder, refuse_existing
from lrc.runtime.packages import versions_of
from lrc.runtime.progress import notify
from lrc.runtime.system import command_line, expand_home
from lrc.runtime.translation import _, message_of
from lrc.tokenization.prompt import Prompt
from lrc.tokenization.serving import MODELFILE, differs, write_for_servers

GENERATION_CONFIG = "generation_config.json"
WRITTEN = (CONFIG, GENERATION_CONFIG, INDEX, "*.safetensors", *TOKENIZER_FILES, RUN_FILE, MODELFILE)
LONG = 1 << 30  # bytes from which loading a model takes a while


def merge(
    adapter: Path,
    output_dir: Path,
    *,
    base_model: str | None = None,
    dtype: str | None = None,
    verify: bool = True,
    force: bool = False,
) -> None:
    """Merge an adapter into its unquantized base.

    Args:
        adapter: the adapter's folder.
        output_dir: the merged model's folder, which appears complete or not at all.
        base_model: a folder, or a name on the Hub; by default the one in the adapter's configuration.
        dtype: `float32`, `float16` or `bfloat16`; by default that of the base.
        verify: compare logits with those of base and adapter, if there is enough memory, and refuse a model that
            differs by more than rounding.
        force: replace an output that exists, if it holds nothing but the files of a merged model.

    Raises:
        LrcError: an input cannot be used, the output exists, or memory or disk do not suffice.
    """
    asked = {"adapter": adapter, "base_model": base_model, "dtype": dtype, "verify": verify}
    refuse_other_output(output_dir, asked, force=force)
    base = _base_of(adapter, base_model)
    _refuse_inputs_as_output(output_dir, adapter, base)
    _refuse_tokens(adapter, base)
    _verify_base(adapter, base)
    key = _key(adapter, base, dtype)
    if not force and is_finished(output_dir, asked, key):
        print_lines(DONE.format(output=output_dir))
        return
    refuse_existing(output_dir, force=force)
    _refuse_losses(output_dir)
    target = getattr(torch, dtype) if dtype else None
    weights = WeightFiles(base)
    _require_disk(output_dir, weights, target)
    with new_folder(output_dir, force=force, own=WRITTEN) as folder, convert_disk_errors(output_dir, folder):
        changed = _write_weights(adapter, base, weights, folder, target)
        _copy_companions(adapter, base, folder)
        _write_for_servers(adapter, folder)
        comparison: str = _("logits not compared (--no-verify)")
        if verify:
            comparison = _verify(folder, output_dir, base, adapter, weights)
        remember(output_dir, asked, key, content_of(folder))
    text = _("{folder}: merged, {changed} tensors changed; every tensor was read back and is finite; {comparison}")
    print_lines(text.format(folder=output_dir, changed=changed, comparison=comparison))
    if not is_step():
        words = ["lrc", "generate", "--model", str(output_dir), "--data", "TEST.xlsx", "--output", "answer.csv"]
        print_next(command_line(words))


def _key(adapter: Path, base: Path, dtype: str | None) -> str:
    """The key of everything on which a merged model depends."""
    sums = {file.name: checksum(file) for file in sorted(adapter.iterdir()) if file.is_file()}
    software = list(versions_of("lrc", "torch", "transformers", "peft").values())
    return key_of([sums, fingerprint_base(str(base)), dtype, software])


def _base_of(adapter: Path, base_model: str | None) -> Path:
    settings = read_adapter_config(adapter)
    if getattr(settings, "layer_replication", None):
        raise ModelError(
            _(
                "{adapter}: layer_replication repeats layers of the base, each with an adapter of its "
                "own, and a merged model would need another architecture; answer with --adapter instead"
            ).format(adapter=adapter)
        )
    name = base_model or settings.base_model_name_or_path
    if not name:
        raise ModelError(
            _("{adapter}: does not name its base model; give it with --base-model").format(adapter=adapter)
        )
    base = find_base(name, None if base_model else settings.revision)
    stored = StoredQuantization.of(read_json(base / CONFIG))
    if stored is not None:
        raise ModelError(
            _(
                "{name}: is quantized on disk ({stored}), and a merged model would keep its rounding; "
                "pass the unquantized model that it was made from as --base-model"
            ).format(name=name, stored=stored)
        )
    return base


def _refuse_inputs_as_output(output_dir: Path, adapter: Path, base: Path) -> None:
    for source in (adapter, base):
        if is_in(source, output_dir):
            raise OutputError(
                _("{output_dir}: would replace {name}, which is being merged; choose another name").format(
                    output_dir=output_dir, name=source.resolve().name
                )
            )


def _refuse_losses(output_dir: Path) -> None:
    """Refuse to replace the current folder or the user's home, even if nothing else is in it."""
    for other in (Path.cwd(), Path(expand_home("~"))):
        if is_in(other, output_dir):
            text = _("{output_dir}: holds {other}, which would be removed with it; choose another name")
            raise OutputError(text.format(output_dir=output_dir, other=other))


def _refuse_tokens(adapter: Path, base: Path) -> None:
    """Refuse an adapter's tokenizer with ids beyond the embeddings of the base: the merged model would get both."""
    if _tokenizer_folder(adapter, base) == adapter:
        check_tokens(load_tokenizer(str(adapter)), load_config(str(base)).get_text_config().vocab_size)


def _verify_base(adapter: Path, base: Path) -> None:
    run = read_run(adapter)
    if run and run.base:
        verify_base(run.base, base)
        if quantized := run.base.get("quantized"):
            text = _(
                "{adapter}: was trained on {base} ({method}), and is merged into the model that this was made from; "
                "answers may differ where rounding decided"
            )
            notify(text.format(adapter=adapter, base=run.base.get("name"), method=quantized["method"]))
    else:
        text = _("{adapter}: does not say which base it was trained on; only the shapes can be checked")
        notify(text.format(adapter=adapter))


def _require_disk(output_dir: Path, weights: WeightFiles, dtype: torch.dtype | None) -> None:
    need = sum(spec.nbytes // spec.dtype.itemsize * (dtype or spec.dtype).itemsize for spec in weights.specs.values())
    place = next(parent for parent in output_dir.absolute().parents if parent.is_dir())
    have = shutil.disk_usage(place).free
    if need > have:
        raise MachineError(
            _("{output_dir}: needs {need}, {have} are free; make room on that disk").format(
                output_dir=output_dir, need=format_size(need), have=format_size(have)
            )
        )


def _write_weights(adapter: Path, base: Path, weights: WeightFiles, folder: Path, dtype: torch.dtype | None) -> int:
    try:
        return write_streamed(StreamingMerge(adapter, base, weights), base, folder, dtype)
    except NotStreamed as reason:
        text = _("{adapter}: {reason}; PEFT merges it with the whole model in memory")
        notify(text.format(adapter=adapter, reason=message_of(reason)))
        for file in folder.iterdir():
            file.unlink()
        return write_whole(adapter, base, folder, dtype)


def _copy_companions(adapter: Path, base: Path, folder: Path) -> None:
    tokenizer = _tokenizer_folder(adapter, base)
    for source, names in (
        (base, (GENERATION_CONFIG,)),
        (tokenizer, TOKENIZER_FILES),
    ):
        for name in names:
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
    if run := read_run(adapter):  # for a checkpoint, it may be in the run's folder
        run.write(folder / RUN_FILE)


def _write_for_servers(adapter: Path, folder: Path) -> None:
    """Write a chat template and a Modelfile with which other programs use lrc's prompt, if the run records it."""
    run = read_run(folder)
    if run is None or not any((folder / name).is_file() for name in VOCABULARIES):
        text = _(
            "{adapter}: does not say which tokenizer it has; the merged model gets no {file}, and its chat template "
            "stays"
        )
        if run is None:
            text = _(
                "{adapter}: does not say how it was trained to be asked; the merged model gets no {file}, and its chat "
                "template stays"
            )
        notify(text.format(adapter=adapter, file=MODELFILE))
        return
    try:
        prompt = Prompt(load_tokenizer(str(folder)), run.template, run.answer_style, run.list_options, run.chat_date)
        write_for_servers(folder, prompt, run)
    except RecipeError as error:
        text = _("{adapter}: {reason}; the merged model gets no {file}, and its chat template stays")
        notify(text.format(adapter=adapter, reason=message_of(error), file=MODELFILE))
        return
    if differs(load_tokenizer(str(folder)), prompt):
        notify(
            _(
                "chat template: by itself it makes another prompt than lrc, perhaps with today's date, or with tokens "
                "for what is text to lrc; have other programs complete lrc's own tokens (docs/serving.md)"
            )
        )


def _tokenizer_folder(adapter: Path, base: Path) -> Path:
    return adapter if any((adapter / name).is_file() for name in VOCABULARIES) else base


def _verify(folder: Path, output_dir: Path, base: Path, adapter: Path, weights: WeightFiles) -> str:
    need, have = float32_bytes(weights), available_memory()
    if need > have:
        text = _("logits not compared: that needs {need}, {have} of memory are free")
        return text.format(need=format_size(need), have=format_size(have))
    if weights.nbytes > LONG:
        notify(_("comparing the logits of the merged model with those of base + adapter"))
    return compare_logits(folder, base, adapter, _tokenizer_folder(adapter, base), output_dir).text
