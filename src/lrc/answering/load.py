"""Loads a model and its adapters as a `Scorer`, with the prompt of their training, which their folders record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import harmonic_mean
from typing import Any

import torch
from accelerate.utils import gather_object
from accelerate.utils.memory import clear_device_cache
from transformers import BitsAndBytesConfig

from lrc.answering.options import ScoringOptions, runs_of
from lrc.answering.scoring import Scorer
from lrc.config.run_record import SCORED_AS_THEY_ARE, Run, read_run
from lrc.metrics.calibration import at_bound
from lrc.models.adapter import refuse_changed_base, refuse_incomplete_adapter
from lrc.models.answering_model import choose_dtype, load_for_answering
from lrc.models.fingerprint import CONFIG, find_base, verify_base
from lrc.models.loading import check_vocabulary, load_config, load_tokenizer, loading_errors, stored_dtype
from lrc.models.placement import Weights, check_main_memory, place_copies, place_model
from lrc.models.quantization import quantization_config
from lrc.models.stored_quantization import StoredQuantization
from lrc.models.weights import ADAPTER_WEIGHTS
from lrc.runtime.devices import common_dtype, require_kernels
from lrc.runtime.errors import ModelError, RecipeError
from lrc.runtime.json_objects import read_json
from lrc.runtime.memory import keep_freed_memory
from lrc.runtime.processes import processes
from lrc.runtime.progress import notify
from lrc.runtime.system import WINDOWS
from lrc.runtime.translation import _
from lrc.tokenization.prompt import Prompt


def load_scorer(model: str, options: ScoringOptions) -> Scorer:
    """Load a model with its adapters, and the prompt of its training.

    Args:
        model: a base or merged model: a folder, or a name on the Hub.
        options: adapters, and what is to differ from the training.

    Raises:
        ModelError: it cannot be loaded, or nothing says how it was trained.
        MachineError: the device does not support `options.dtype`.
        RecipeError: options do not fit together, or do not fit the prompt.
    """
    runs = runs_of(model, options)
    _refuse_unfit_adapters(model, options.adapters)
    run = runs[0]
    prompt = _load_prompt(model, run, options)
    if processes().is_main_process:
        for note in prompt.notes:
            notify(note)
    if prompt.answer_style != "text" and options.score_normalisation is not None:
        raise RecipeError(
            _(
                "--score-normalisation is {score_normalisation}, but {scored_as_they_are} are scored as "
                "they are; leave it out"
            ).format(
                score_normalisation=options.score_normalisation,
                scored_as_they_are=SCORED_AS_THEY_ARE[prompt.answer_style],
            )
        )
    normalisation = options.score_normalisation or run.score_normalisation
    asked = (prompt.template, prompt.answer_style, prompt.list_options, normalisation)
    device = processes().device
    require_kernels(device.type)
    options, bits = _agree_on_dtype(model, run, options, device)
    options, bits, places = _place(model, run, options, device, bits)
    loaded, names = load_for_answering(
        model,
        options.adapters,
        device,
        bits,
        options.dtype,
        places,
        average=options.average_weights,
        trained=run.recipe.get("dtype"),
    )
    check_vocabulary(prompt.tokenizer, loaded)
    if device.type == "cpu":
        keep_freed_memory()
    return Scorer(
        loaded,
        prompt,
        device,
        options.row_tokens,
        options.votes,
        tuple(names),
        normalisation=normalisation,
        temperature=_temperature(runs, asked, options.votes),
    )


def _load_prompt(model: str, run: Run, options: ScoringOptions) -> Prompt:
    """The prompt of the run, except for what the options change; the tokenizer is the adapter's if it has one."""
    has_tokenizer = bool(options.adapters) and (options.adapters[0] / "tokenizer_config.json").is_file()
    tokenizer = load_tokenizer(str(options.adapters[0]) if has_tokenizer else model)
    same_style = options.answer_style in (None, run.answer_style)
    listed = run.list_options if options.list_options is None and same_style else options.list_options
    template, style = options.template or run.template, options.answer_style or run.answer_style
    return Prompt(tokenizer, template, style, listed, run.chat_date)


def _quantization_of(model: str, run: Run, options: ScoringOptions, device: torch.device) -> BitsAndBytesConfig | None:
    """How to quantize the model when it is loaded; None if its files are quantized already.

    Raises:
        ModelError: the flag contradicts the files.
    """
    stored = StoredQuantization.of(read_json(find_base(model, flag="--model") / CONFIG))
    if stored is None:
        # A merged model is loaded as it is on the disk, whatever its adapter was trained on.
        recipe = run.recipe if options.adapters else {}
        return _configure(model, recipe, device, options, options.load_in_4bit)
    if options.load_in_4bit is not None and options.load_in_4bit != (stored.bits == 4):
        flag = "--load-in-4bit" if options.load_in_4bit else "--no-load-in-4bit"
        raise ModelError(
            _("{model}: its weights are quantized on the disk ({stored}); leave {flag} out").format(
                model=model, stored=stored, flag=flag
            )
        )
    return None


def _agree_on_dtype(
    model: str, run: Run, options: ScoringOptions, device: torch.device
) -> tuple[ScoringOptions, BitsAndBytesConfig | None]:
    """The options with a dtype that the devices of all processes compute in, and the quantization with it.

    The options stay as they are if all devices choose alike.
    """
    bits = _quantization_of(model, run, options, device)
    if processes().num_processes == 1:
        return options, bits
    chosen = gather_object([_computed_in(model, run, options, device, bits)])
    if len(set(chosen)) == 1:
        return options, bits
    taken = common_dtype(chosen)
    if processes().is_main_process:
        text = _("launch: on their devices the processes would compute in {dtypes}; {taken} is used in all of them")
        notify(text.format(dtypes=tuple(chosen), taken=taken))
    agreed = replace(options, dtype=taken)
    return agreed, _quantization_of(model, run, agreed, device)


def _computed_in(
    model: str, run: Run, options: ScoringOptions, device: torch.device, bits: BitsAndBytesConfig | None
) -> str:
    """The dtype in which this process would compute, such as `bfloat16`."""
    if bits is not None and bits.load_in_4bit:
        return str(bits.bnb_4bit_compute_dtype).removeprefix("torch.")
    return choose_dtype(load_config(model), device, options.dtype, run.recipe.get("dtype"))


def _place(
    model: str, run: Run, options: ScoringOptions, device: torch.device, bits: BitsAndBytesConfig | None
) -> tuple[ScoringOptions, BitsAndBytesConfig | None, dict[str, int] | None]:
    """The options, the quantization and the device map with which a model fits the GPUs of this machine.

    If there are several processes, each uses only its own GPU; if one of them needs 4 bits, all take them. One process
    may use any GPUs, and its dtype is one that all of those compute in.
    """
    # What an earlier model of this process has left, such as in a notebook, is not free yet.
    clear_device_cache(garbage_collection=True)
    config, folder = load_config(model), find_base(model, flag="--model")
    state, stored = processes(), StoredQuantization.of(config)
    may_quantize = bits is None and options.load_in_4bit is None and stored is None
    assumed = _computed_in(model, run, options, device, bits)
    weights = Weights(config, getattr(torch, assumed), bits, folder)
    if device.type == "cpu":
        # What is not converted stays in the files, and is read from there again when memory is short.
        mapped = not WINDOWS and weights.is_whole and stored_dtype(config) == assumed
        with loading_errors(model, _("model")):
            told = check_main_memory(model, weights, mapped=mapped)
        if told and state.is_main_process:
            notify(_("{model}: {found}").format(model=model, found=told))
    if device.type != "cuda":
        return options, bits, None
    if state.num_processes > 1:
        free = gather_object([torch.cuda.mem_get_info(device)[0]])
        with loading_errors(model, _("model")):
            found = place_copies(model, weights, free, may_quantize=may_quantize)
    else:
        with loading_errors(model, _("model")):
            found = place_model(model, weights, may_quantize=may_quantize)
        chosen = [_computed_on(gpu, model, run, options, device) for gpu in found.gpus]
        torch.cuda.set_device(found.first)  # from here on, `cuda` means this GPU
        if (taken := common_dtype(chosen)) != assumed:
            if len(set(chosen)) > 1:
                text = _("{model}: its GPUs would compute in {dtypes}; {taken} is used in all of them")
                notify(text.format(model=model, dtypes=tuple(chosen), taken=taken))
            options = replace(options, dtype=taken)
            bits = _quantization_of(model, run, options, device)
            if taken == "float32":  # which all GPUs compute in, and which takes twice as much
                return _place(model, run, options, device, bits)
    if found.notice and state.is_main_process:
        notify(_("{model}: {found}").format(model=model, found=found.notice))
    return options, (_configure(model, {}, device, options, True) if found.four_bits else bits), found.device_map


def _computed_on(gpu: int, model: str, run: Run, options: ScoringOptions, device: torch.device) -> str:
    """The dtype in which a model would compute on a GPU of this machine, which becomes the current one."""
    torch.cuda.set_device(gpu)
    return _computed_in(model, run, options, device, _quantization_of(model, run, options, device))


def _configure(
    model: str, recipe: Mapping[str, Any], device: torch.device, options: ScoringOptions, load_in_4bit: bool | None
) -> BitsAndBytesConfig | None:
    family = load_config(model).get_text_config().model_type
    return quantization_config(recipe, device, load_in_4bit, family=family, dtype=options.dtype)


def _refuse_unfit_adapters(model: str, adapters: Sequence[Path]) -> None:
    """Refuse a model on which an adapter was not trained, and an incomplete adapter: they would answer, but badly.

    Raises:
        ModelError: the model is not the one that an adapter's run recorded, or the adapter's tensors do not fit it.
    """
    if not adapters:
        return
    refuse_changed_base(adapters)
    base = find_base(model, flag="--model")
    stored = StoredQuantization.of(read_json(base / CONFIG))
    quantized = stored is not None
    for adapter in adapters:
        run = read_run(adapter)
        if stored and stored.rescales and run and run.base and "quantized" not in run.base:
            text = _(
                "{model}: is quantized on the disk ({stored}), so its layers have rescaled inputs, and {adapter} was "
                "trained on {origin}; answer with that one"
            )
            raise ModelError(text.format(model=model, stored=stored, adapter=adapter, origin=run.base.get("name")))
        if quantized and not (run and "quantized" in run.base):
            if processes().is_main_process:
                text = _(
                    "{model}: is quantized on the disk, so whether {adapter} was trained on its original is not known"
                )
                notify(text.format(model=model, adapter=adapter))
            continue
        if run and run.base:
            verify_base(run.base, base, "--model")
        if not quantized and (adapter / ADAPTER_WEIGHTS).is_file():
            refuse_incomplete_adapter(adapter, base)


def _temperature(runs: Sequence[Run], asked: tuple[Any, ...], votes: int) -> float:
    """The temperature for the average of several adapters: the harmonic mean of theirs.

    This is as if the log-probabilities of each were divided by its own temperature.

    Args:
        runs: of the adapters.
        asked: the template, answer style, listing of options and normalisation in use. A temperature that was fitted
            with others does not apply, and counts as 1.
        votes: how many are averaged; each temperature was fitted with one.
    """
    fitted = [
        run.temperature if asked == (run.template, run.answer_style, run.list_options, run.score_normalisation) else 1.0
        for run in runs
    ]
    temperature = harmonic_mean(fitted)
    if processes().is_main_process:
        for line in _doubts(runs, fitted, temperature, votes):
            notify(line)
    return temperature


def _doubts(runs: Sequence[Run], fitted: Sequence[float], temperature: float, votes: int) -> Iterator[str]:
    """Lines that say why probabilities, though not answers, are less reliable."""
    for run, used in zip(runs, fitted, strict=True):
        if used != run.temperature:
            yield _(
                "temperature {temperature:.4g} was fitted with template {template}, answer_style {style}, "
                "score_normalisation {normalisation}, and is not used with others"
            ).format(
                temperature=run.temperature,
                template=run.template,
                style=run.answer_style,
                normalisation=run.score_normalisation,
            )
    if temperature != 1 and (votes > 1 or len(runs) > 1):
        yield _(
            "temperature {temperature:.4g} was fitted with one vote of one adapter and is used with {votes} of "
            "{adapters}: answers stay as they are, probabilities are less exact"
        ).format(temperature=temperature, votes=votes, adapters=len(runs))
    if bound := at_bound(temperature):
        yield _("temperature {temperature:.4g}: {bound}").format(temperature=temperature, bound=bound)
