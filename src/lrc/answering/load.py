"""A model and its adapters → a scorer that asks as they were trained to be asked, by what their folders say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import harmonic_mean
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from lrc.answering.options import ScoringOptions, runs_of
from lrc.answering.scoring import Scorer
from lrc.config.run_record import SCORED_AS_THEY_ARE, Run, read_run
from lrc.metrics.calibration import at_bound
from lrc.models.adapter import read_adapter_config, refuse_incomplete_adapter
from lrc.models.answering_model import choose_dtype, load_for_answering
from lrc.models.fingerprint import CONFIG, find_base, read_json, verify_base
from lrc.models.loading import check_vocabulary, load_config, load_tokenizer
from lrc.models.placement import place_model
from lrc.models.quantization import quantization_config
from lrc.models.stored_quantization import StoredQuantization
from lrc.models.weights import ADAPTER_WEIGHTS
from lrc.runtime.errors import ModelError, RecipeError
from lrc.runtime.processes import processes
from lrc.runtime.progress import notify
from lrc.runtime.translation import _
from lrc.tokenization.prompt import Prompt


def load_scorer(model: str, options: ScoringOptions) -> Scorer:
    """Load a model with its adapters, with the prompt that it was trained with.

    Raises:
        ModelError: it cannot be loaded, or nothing says how it was trained.
        RecipeError: what is asked for does not go together.
    """
    runs = runs_of(model, options)
    _refuse_unfit_adapters(model, options.adapters)
    run = runs[0]
    has_tokenizer = bool(options.adapters) and (options.adapters[0] / "tokenizer_config.json").is_file()
    tokenizer = load_tokenizer(str(options.adapters[0]) if has_tokenizer else model)
    same_style = options.answer_style in (None, run.answer_style)
    listed = run.list_options if options.list_options is None and same_style else options.list_options
    template, style = options.template or run.template, options.answer_style or run.answer_style
    prompt = Prompt(tokenizer, template, style, listed, run.chat_date)
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
    bits = _quantization_of(model, run, options, device)
    bits, places = _place(model, options, device, bits)
    loaded, names = load_for_answering(
        model, options.adapters, device, bits, options.dtype, places, average=options.average_weights
    )
    check_vocabulary(tokenizer, loaded)
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


def _quantization_of(model: str, run: Run, options: ScoringOptions, device: torch.device) -> BitsAndBytesConfig | None:
    """How the model is quantized as it is loaded; not at all where its files are quantized already.

    Raises:
        ModelError: the flag asks for what the files do not hold.
    """
    stored = StoredQuantization.of(read_json(find_base(model, flag="--model") / CONFIG))
    if stored is None:
        # A merged model is on the disk as it is meant to be asked, whatever its adapter was trained on.
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


def _place(
    model: str, options: ScoringOptions, device: torch.device, bits: BitsAndBytesConfig | None
) -> tuple[BitsAndBytesConfig | None, dict[str, int] | None]:
    """In how many bits a model is loaded, and where, so that it fits the GPUs of this machine.

    Where several processes ask it, each has a GPU to itself and takes no other.
    """
    config = load_config(model)
    if device.type != "cuda" or StoredQuantization.of(config) is not None:
        return bits, None
    if processes().num_processes > 1 and torch.cuda.device_count() > 1:
        return bits, None
    dtype = bits.bnb_4bit_compute_dtype if bits is not None and bits.load_in_4bit else None
    dtype = dtype or getattr(torch, choose_dtype(config, device, options.dtype))
    found = place_model(config, dtype, bits, may_quantize=bits is None and options.load_in_4bit is None)
    if found.notice:
        notify(f"{model}: {found.notice}")
    torch.cuda.set_device(found.first)  # which `cuda` means from here on
    return (_configure(model, {}, device, options, True) if found.four_bits else bits), found.device_map


def _configure(
    model: str, recipe: Mapping[str, Any], device: torch.device, options: ScoringOptions, load_in_4bit: bool | None
) -> BitsAndBytesConfig | None:
    family = load_config(model).get_text_config().model_type
    return quantization_config(recipe, device, load_in_4bit, family=family, dtype=options.dtype)


def _refuse_unfit_adapters(model: str, adapters: Sequence[Path]) -> None:
    """Refuse a model that an adapter was not trained on, and an adapter that is not whole: both would answer, badly.

    Raises:
        ModelError: the model is another one than an adapter's run recorded, or tensors are missing or too many.
    """
    if not adapters:
        return
    for adapter in adapters:
        read_adapter_config(adapter)
    base = find_base(model, flag="--model")
    quantized = StoredQuantization.of(read_json(base / CONFIG)) is not None
    for adapter in adapters:
        run = read_run(adapter)
        if quantized and not (run and "quantized" in (run.base or {})):
            if processes().is_main_process:
                notify(
                    f"{model}: is quantized on the disk, so whether {adapter} was trained on its original is not known"
                )
            continue
        if run and run.base:
            verify_base(run.base, base, "--model")
        if not quantized and (adapter / ADAPTER_WEIGHTS).is_file():
            refuse_incomplete_adapter(adapter, base)


def _temperature(runs: Sequence[Run], asked: tuple[Any, ...], votes: int) -> float:
    """The temperature of the models together: the harmonic mean, as if each had divided its own log-probabilities.

    Args:
        asked: template, style, list and normalisation in use; where a run was fitted with others its temperature says
            nothing and counts as 1.
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
    """Why the probabilities, though not the answers, deserve less belief."""
    for run, used in zip(runs, fitted, strict=True):
        if used != run.temperature:
            yield (
                f"temperature {run.temperature:.4g} was fitted with template {run.template}, answer_style "
                f"{run.answer_style}, score_normalisation {run.score_normalisation}, and is not used with others"
            )
    if temperature != 1 and (votes > 1 or len(runs) > 1):
        yield (
            f"temperature {temperature:.4g} was fitted with one vote of one adapter and is used with {votes} of "
            f"{len(runs)}: answers stay as they are, probabilities are less exact"
        )
    if bound := at_bound(temperature):
        yield f"temperature {temperature:.4g}: {bound}"
