"""A model and its adapters → a scorer that asks as they were trained to be asked, by what their folders say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from lrc.models.fingerprint import CONFIG, find_base, read_json, verify_base
from lrc.models.loading import check_vocabulary, load_for_answering, load_tokenizer
from lrc.models.quantization import quantization_config
from lrc.models.stored_quantization import StoredQuantization
from lrc.models.weights import ADAPTER_WEIGHTS
from lrc.runtime.errors import ModelError, RecipeError
from lrc.runtime.memory import size
from lrc.runtime.processes import processes
from lrc.runtime.progress import say
from lrc.runtime.translation import _
from lrc.tokenization.prompt import Prompt


def load_scorer(model: str, asking: ScoringOptions) -> Scorer:
    """Load a model with its adapters, with the prompt that it was trained with.

    Raises:
        ModelError: it cannot be loaded, or nothing says how it was trained.
        RecipeError: what is asked for does not go together.
    """
    runs = runs_of(model, asking)
    _refuse_strange_adapters(model, asking.adapters)
    run = runs[0]
    has_tokenizer = bool(asking.adapters) and (asking.adapters[0] / "tokenizer_config.json").is_file()
    tokenizer = load_tokenizer(str(asking.adapters[0]) if has_tokenizer else model)
    same_style = asking.answer_style in (None, run.answer_style)
    listed = run.list_options if asking.list_options is None and same_style else asking.list_options
    template, style = asking.template or run.template, asking.answer_style or run.answer_style
    prompt = Prompt(tokenizer, template, style, listed, run.chat_date)
    if processes().is_main_process:
        for note in prompt.notes:
            say(note)
    if prompt.answer_style != "text" and asking.score_normalisation is not None:
        raise RecipeError(
            _(
                "--score-normalisation is {score_normalisation}, but {scored_as_they_are} are scored as "
                "they are; leave it out"
            ).format(
                score_normalisation=asking.score_normalisation,
                scored_as_they_are=SCORED_AS_THEY_ARE[prompt.answer_style],
            )
        )
    normalisation = asking.score_normalisation or run.score_normalisation
    asked = (prompt.template, prompt.answer_style, prompt.list_options, normalisation)
    device = processes().device
    bits = _quantization_of(model, run, asking, device)
    loaded, names = load_for_answering(model, asking.adapters, device, bits, asking.dtype)
    check_vocabulary(tokenizer, loaded)
    return Scorer(
        loaded,
        prompt,
        device,
        asking.row_tokens,
        asking.votes,
        tuple(names),
        normalisation=normalisation,
        temperature=_temperature(runs, asked, asking.votes),
    )


def _quantization_of(model: str, run: Run, asking: ScoringOptions, device: torch.device) -> BitsAndBytesConfig | None:
    """How the model is quantized as it is loaded; not at all where its files are quantised already.

    Raises:
        ModelError: the flag asks for what the files do not hold.
    """
    stored = StoredQuantization.of(_settings(find_base(model, flag="--model") / CONFIG))
    if stored is None:
        # A merged model is on the disk as it is meant to be asked, whatever its adapter was trained on.
        bits = quantization_config(run.recipe if asking.adapters else {}, device, asking.load_in_4bit)
        fits = bits is not None or asking.load_in_4bit is not None or device.type != "cuda"
        return bits if fits else _quantized_to_fit(model, device)
    if asking.load_in_4bit is not None and asking.load_in_4bit != (stored.bits == 4):
        flag = "--load-in-4bit" if asking.load_in_4bit else "--no-load-in-4bit"
        raise ModelError(
            _("{model}: its weights are quantised on the disk ({stored}); leave {flag} out").format(
                model=model, stored=stored, flag=flag
            )
        )
    return None


def _quantized_to_fit(model: str, device: torch.device) -> BitsAndBytesConfig | None:
    """4 bits, where the weights as they are stored take more than nine tenths of what the device has free."""
    needed = sum(file.stat().st_size for file in find_base(model, flag="--model").glob("*.safetensors"))
    free, _ = torch.cuda.mem_get_info(device)
    if needed <= 0.9 * free:
        return None
    say(
        f"{model}: its weights take {size(needed)}, and {device} has {size(free)} free; loading in 4 bits "
        "(--no-load-in-4bit turns this off)"
    )
    return quantization_config({}, device, load_in_4bit=True)


def _refuse_strange_adapters(model: str, adapters: Sequence[Path]) -> None:
    """Refuse a model that an adapter was not trained on, and an adapter that is not whole: both would answer, badly.

    Raises:
        ModelError: the model is another one than an adapter's run recorded, or tensors are missing or too many.
    """
    if not adapters:
        return
    for adapter in adapters:
        read_adapter_config(adapter)
    base = find_base(model, flag="--model")
    quantized = StoredQuantization.of(_settings(base / CONFIG)) is not None
    for adapter in adapters:
        run = read_run(adapter)
        if quantized and not (run and "quantized" in (run.base or {})):
            continue  # a copy in fewer bits of the adapter's base, without a record of its source
        if run and run.base:
            verify_base(run.base, base, "--model")
        if not quantized and (adapter / ADAPTER_WEIGHTS).is_file():
            refuse_incomplete_adapter(adapter, base)


def _settings(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except ValueError as error:
        raise ModelError(
            _("{path}: not a JSON object ({reason}); download the file again").format(path=path, reason=error)
        ) from error


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
            say(line)
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
