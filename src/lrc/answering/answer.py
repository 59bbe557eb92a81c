"""What generate and evaluate share: a model and its prompt from what its folder knows, and questions from any file."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from statistics import harmonic_mean
from typing import Any

import torch
from accelerate.utils import gather_object
from transformers import BitsAndBytesConfig

from lrc.answering.options import ScoringOptions, runs_of
from lrc.answering.partial_scores import PartialScores
from lrc.answering.scoring import OptionScores, Scorer, chunks
from lrc.config.run_record import SCORED_AS_THEY_ARE, Run, read_run
from lrc.data.alpaca import Record
from lrc.data.sources import stream_records
from lrc.metrics.calibration import at_bound
from lrc.models.adapter import read_adapter_config
from lrc.models.fingerprint import CONFIG, find_base, fingerprint_base, read_json, verify_base
from lrc.models.loading import check_vocabulary, load_for_answering, load_tokenizer, positions
from lrc.models.merging.tensor_sources import NotStreamed, StreamingMerge
from lrc.models.quantization import quantization_config
from lrc.models.stored_quantization import StoredQuantization
from lrc.models.weights import ADAPTER_WEIGHTS, WeightFiles
from lrc.runtime.errors import DataError, ModelError, RecipeError
from lrc.runtime.exit_status import is_first
from lrc.runtime.findings import Finding, tell
from lrc.runtime.memory import size
from lrc.runtime.outputs import checksum, new_file
from lrc.runtime.processes import processes
from lrc.runtime.progress import Advance, say, silence, track
from lrc.tokenization.prompt import Prompt, question_of


def load_scorer(model: str, asking: ScoringOptions) -> Scorer:
    """Load a model with its adapters, to be asked as it was trained.

    Raises:
        ModelError: it cannot be loaded, or nothing says how it was trained.
        RecipeError: what is asked for does not go together.
    """
    runs = runs_of(model, asking)
    _recognise(model, asking.adapters)
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
            f"--score-normalisation is {asking.score_normalisation}, but {SCORED_AS_THEY_ARE[prompt.answer_style]} are "
            "scored as they are; leave it out"
        )
    normalisation = asking.score_normalisation or run.score_normalisation
    asked = (prompt.template, prompt.answer_style, prompt.list_options, normalisation)
    device = processes().device
    bits = _bits(model, run, asking, device)
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


def _bits(model: str, run: Run, asking: ScoringOptions, device: torch.device) -> BitsAndBytesConfig | None:
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
        raise ModelError(f"{model}: its weights are quantised on the disk ({stored}); leave {flag} out")
    return None


def _quantized_to_fit(model: str, device: torch.device) -> BitsAndBytesConfig | None:
    """4 bits, where the weights as they are stored take more than nine tenths of what the device has free."""
    needed = sum(file.stat().st_size for file in find_base(model, flag="--model").glob("*.safetensors"))
    free, _ = torch.cuda.mem_get_info(device)
    if needed <= 0.9 * free:
        return None
    say(
        f"{model}: its weights take {size(needed)}, and {device} has {size(free)} free; loaded in 4 bits, which "
        "--no-load-in-4bit leaves out"
    )
    return quantization_config({}, device, load_in_4bit=True)


def _recognise(model: str, adapters: Sequence[Path]) -> None:
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
            continue  # a copy in fewer bits of the adapter's base, of which nothing says what it was
        if run and run.base:
            verify_base(run.base, base, "--model")
        if not quantized and (adapter / ADAPTER_WEIGHTS).is_file():
            with suppress(NotStreamed):  # then only PEFT knows what belongs to it
                StreamingMerge(adapter, base, WeightFiles(base))


def _settings(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except ValueError as error:
        raise ModelError(f"{path}: not a JSON object ({error}); fetch the file again") from error


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


def answer(scorer: Scorer, records: Sequence[Record], side: PartialScores | None = None) -> list[OptionScores]:
    """Score every record, the processes of a launch sharing the work; all of them get all scores, in order.

    A passage that is too long for the model is shortened, and a line names the question.

    The scores are those of one process, to the last bit: whole chunks are shared out, and a chunk is computed alike
    wherever that happens.

    Args:
        side: where this process's scores are kept until the output is there.

    Raises:
        DataError: a question is too long without its passage.
        ModelError: a score is not a number.
    """
    state = processes()
    if not state.is_main_process:
        silence()
    records, shortened = scorer.fitted(records)
    if shortened and state.is_main_process:
        limit = positions(scorer.model.config)
        say(f"{len(shortened)} passages shortened to fit the model's {limit} positions: {', '.join(shortened)}")
    share = state.process_index, state.num_processes
    known = {} if side is None else side.start()
    with track("answer", sum(map(len, chunks(records)[share[0] :: share[1]])), before=len(known)) as advance:
        mine = _share(scorer, records, share, known, side, advance)
    every = gather_object([mine]) if state.num_processes > 1 else [mine]
    scores = {place: score for part in every for place, score in part.items()}
    return [scores[place] for place in range(len(records))]


def _refuse_not_numbers(records: Sequence[Record], scores: Mapping[int, OptionScores]) -> None:
    """Refuse scores that choose nothing.

    Raises:
        ModelError: a score is not a number.
    """
    for place, score in scores.items():
        if any(math.isnan(value) for value in score.log_probs):
            raise ModelError(
                f"question {records[place].id}: its scores are not numbers; the model or the adapter is broken"
            )


def _share(
    scorer: Scorer,
    records: Sequence[Record],
    share: tuple[int, int],
    known: dict[int, OptionScores],
    side: PartialScores | None,
    advance: Advance,
) -> dict[int, OptionScores]:
    """This process's scores, by place in `records`, added to those that are known; see `Scorer.parts`."""
    for part in scorer.parts(records, known.keys(), share):
        try:
            _refuse_not_numbers(records, part)
        except ModelError:
            if side is not None:
                side.path.unlink()  # to go on from there would come to the same
            raise
        if side is not None:
            side.append(part)
        advance(len(part.keys() - known.keys()))
        known.update(part)
    return known


def facts(model: str, asking: ScoringOptions, data: Path) -> list[Any]:
    """Everything that scores depend on: model, adapters, questions, flags, the launch and the software.

    Raises:
        ModelError: there is no such model, or nothing says how it was trained.
    """
    state = processes()
    files = [data, *(file for adapter in asking.adapters for file in sorted(adapter.glob("*")) if file.is_file())]
    named = {**asdict(asking), "adapters": len(asking.adapters)}
    sums = [checksum(file) for file in files]
    software = [version(name) for name in ("lrc", "torch", "transformers", "peft")]
    runs = [asdict(run) for run in runs_of(model, asking)]
    base = fingerprint_base(model, flag="--model")
    return [base, sums, named, runs, state.num_processes, state.device.type, software]


def read_questions_to_answer(
    path: Path,
    sheet: str | None = None,
    columns: Mapping[str, str] | None = None,
    *,
    told: Callable[[Iterable[Finding]], None] = tell,
) -> list[Record]:
    """Read records that can be answered, and tell what was found in their file.

    Args:
        sheet: the sheet of a workbook; the first visible one by default.
        columns: see `datafile.read_questions`.
        told: what is done with the findings; by default they are printed on stderr.

    Raises:
        DataError: the file cannot be read, or a record is no question with options.
    """
    records = list(found := stream_records(path, sheet, columns))
    if is_first():
        told(found.findings)
    for record in records:
        try:
            question_of(record)
        except DataError as error:
            raise DataError(f"{path.name}, {error}") from error
    return records


def write_scores(path: Path, records: Sequence[Record], scores: Sequence[OptionScores], *, force: bool) -> None:
    """Write a JSON line a question; an option that cannot be chosen has no score."""
    with new_file(path, force=force) as temporary, temporary.open("w", encoding="utf-8") as file:
        for line in _lines(records, scores):
            file.write(line)


def _lines(records: Sequence[Record], scores: Sequence[OptionScores]) -> Iterator[str]:
    for record, score in zip(records, scores, strict=True):
        line = {
            "id": record.id,
            "row": question_of(record).row,
            "scores": [value if value > float("-inf") else None for value in score.log_probs],
            "probabilities": list(score.probabilities),
            "prediction": score.prediction,
        }
        yield json.dumps(line, ensure_ascii=False) + "\n"
