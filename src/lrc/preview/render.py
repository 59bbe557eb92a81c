"""Renders the results of `lrc preview`: as lines and a table, or as JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from lrc.config.accelerate_config import Topology
from lrc.config.recipe import Recipe
from lrc.models.loading import tokenizer_backend
from lrc.preview.memory_plan import MemoryPlan, gib, parts_by_name
from lrc.preview.precision import Precision
from lrc.preview.suggestions import Suggestion
from lrc.preview.token_view import TokenView
from lrc.preview.workload import Workload, learning_rates
from lrc.runtime.cards import Card
from lrc.tokenization.prompt import Prompt
from lrc.tokenization.token_dataset import Corpus


@dataclass(frozen=True)
class Tokens:
    """The results about the data."""

    prompt: Prompt
    corpus: Corpus
    shown: list[TokenView]  # examples
    work: Workload


@dataclass(frozen=True)
class Memory:
    """The results about the memory of a device."""

    plan: MemoryPlan
    capacity: int | None  # of the device, in bytes; None if it is not known
    parameters: int  # the number of the base's weights
    trained: int  # the number of trained weights
    suggestion: Suggestion | None  # if the plan does not fit

    @property
    def fits(self) -> bool | None:
        """Whether the plan fits; None if the capacity is not known."""
        return None if self.capacity is None else self.plan.total <= self.capacity


@dataclass(frozen=True)
class Preview:
    """All results."""

    recipe: Recipe
    topology: Topology
    precision: Precision
    row_tokens: int
    not_shared: str | None  # why rows are not trees
    tokens: Tokens | None  # None without data or tokenizer
    memory: Memory | None  # None without the base's configuration
    card: Card | None = None  # the simulated GPU, if one was named
    speed: float | None = None  # unique tokens per second on it, computed


def document(seen: Preview) -> dict[str, Any]:
    """The results as a JSON object; sizes are in bytes."""
    args, given = seen.recipe.training, seen.recipe.data
    found: dict[str, Any] = {
        "recipe": str(seen.recipe.path) if seen.recipe.path else None,
        "base": seen.recipe.model.model_name_or_path,
        "launch": asdict(seen.topology),
        "dtypes": {
            "weights": _name(seen.precision.weights),
            "mixed_precision": _name(seen.precision.autocast),
            "reasons": list(seen.precision.reasons),
        },
        "prompt": {"template": given.template, "answer_style": given.answer_style, "list_options": given.list_options},
        "row_tokens": seen.row_tokens,
        "not_shared": seen.not_shared,
        "optimizer": str(getattr(args.optim, "value", args.optim)),
        "tokens": None,
        "memory": None,
        "card": asdict(seen.card) if seen.card else None,
        "computed_tokens_a_second": seen.speed,
    }
    if seen.tokens:
        found["tokens"] = _tokens(seen.tokens, args)
    if seen.memory:
        found["memory"] = _memory(seen.memory)
    return found


def _tokens(tokens: Tokens, args: Any) -> dict[str, Any]:
    work = {key: value for key, value in vars(tokens.work).items() if key != "row_of"}
    return work | {
        "tokenizer": tokenizer_backend(tokens.prompt.tokenizer),
        "shortened": tokens.corpus.shortened,
        "skipped": tokens.corpus.skipped,
        "sharing": tokens.work.sharing,
        "max_length": args.max_length,
        "learning_rates": learning_rates(args, tokens.work.steps),
        "examples": [asdict(specimen) | {"mask": specimen.mask} for specimen in tokens.shown],
    }


def _memory(memory: Memory) -> dict[str, Any]:
    suggestion = memory.suggestion
    return {
        "parts": parts_by_name(memory.plan),
        "total": memory.plan.total,
        "capacity": memory.capacity,
        "fits": memory.fits,
        "parameters": memory.parameters,
        "trained": memory.trained,
        "cure": suggestion and {"changes": list(suggestion.changes), "total": suggestion.plan.total},
    }


def print_preview(seen: Preview) -> None:
    """Print the results: in colours in a terminal, else as plain lines with ⟦…⟧ around supervised tokens."""
    terminal = sys.stdout.isatty()
    # A pipe has no width: rich would take 80 columns and wrap the cells.
    console = Console(width=None if terminal else 120, highlight=False, markup=False, soft_wrap=not terminal)
    for line in _lines(seen):
        console.print(line)
    if seen.tokens:
        for specimen in seen.tokens.shown:
            console.print()
            console.print(_heading(specimen))
            console.print(specimen.text() if terminal else specimen.plain())
        console.print()
    if seen.memory:
        console.print(_plan(seen.memory, seen.topology))
        console.print(MALLOC if seen.topology.device == "cpu" else COMPUTED)
        if seen.card:
            console.print(_speed(seen))
        console.print(describe_fit(seen.memory))


def _lines(seen: Preview) -> Iterator[str]:
    args, given, where = seen.recipe.training, seen.recipe.data, seen.topology
    yield f"base          {seen.recipe.model.model_name_or_path}"
    yield f"launch        {where.name}: {where.kind}, {where.processes} x {where.device}"
    if seen.card:
        yield f"card          {seen.card.name}: {seen.card.about}"
    yield from _list("dtypes", seen.precision.reasons)
    options = "options listed" if given.list_options else "options not listed"
    yield f"prompt        template {given.template}, answers as {given.answer_style}, {options}"
    rows = f"at most {seen.row_tokens:,} tokens"
    yield f"rows          {rows}" + (
        f"; each question has a row of its own: {seen.not_shared}" if seen.not_shared else ""
    )
    if not seen.tokens:
        return
    tokens, work = seen.tokens, seen.tokens.work
    about = "" if work.exact else "about "
    yield f"tokenizer     {tokenizer_backend(tokens.prompt.tokenizer)}, {len(tokens.prompt.tokenizer):,} tokens"
    merging = sum(specimen.merges for specimen in tokens.shown)
    if merging:
        yield (
            f"boundary      in {merging} of {len(tokens.shown)} examples prompt and answer share a token; they are "
            "tokenized separately, in training and in answering"
        )
    yield f"questions     {work.questions:,}, {work.step_questions} a step"
    for what, ids in (("shortened", tokens.corpus.shortened), ("left out", tokens.corpus.skipped)):
        yield f"{what:<14}{len(ids):,} to fit max_length {args.max_length}" + (f": {', '.join(ids)}" if ids else "")
    yield "lengths       " + ", ".join(f"p{p} {length:,}" for p, length in work.lengths.items()) + " tokens"
    yield (
        f"tokens        {about}{work.separate_tokens:,} an epoch unpacked, {work.unique_tokens:,} computed "
        f"({work.sharing:.2f}x sharing), {work.supervised_tokens:,} supervised"
    )
    a_process = " a process" if where.processes > 1 else ""
    yield (
        f"steps         {work.steps_per_epoch:,} an epoch, {work.steps:,} in all; {about}{work.rows_per_epoch:,} rows "
        f"an epoch{a_process}, the longest {work.longest_row:,} tokens"
    )
    rates = ", ".join(f"{rate:.2e} at step {step:,}" for step, rate in learning_rates(args, work.steps).items())
    yield f"learning rate {getattr(args.lr_scheduler_type, 'value', args.lr_scheduler_type)}: {rates}"


def _list(name: str, texts: tuple[str, ...]) -> Iterator[str]:
    for place, text in enumerate(texts):
        yield f"{name if place == 0 else '':<14}{text}"


def _heading(specimen: TokenView) -> str:
    row = f" (row {specimen.row})" if specimen.row is not None else ""
    return f"id {specimen.id}{row}: {len(specimen.ids)} tokens, {sum(specimen.mask)} of them supervised"


def _plan(memory: Memory, topology: Topology) -> Table:
    table = Table(f"memory of each {topology.device}", title_justify="left")
    table.add_column("", justify="right")
    for name, nbytes in parts_by_name(memory.plan).items():
        table.add_row(name, gib(nbytes))
    table.add_section()
    table.add_row("in all", gib(memory.plan.total))
    return table


# Torch allocates aligned memory, for which glibc rarely reuses what was freed; see benchmarks/memory.py.
MALLOC = (
    "this is allocated memory; glibc's malloc may use several hundred MB more, jemalloc hardly any: "
    "LD_PRELOAD=libjemalloc.so.2"
)


COMPUTED = "this is computed; on one GPU, an H100, it was compared with what was measured: docs/results.md"


def _speed(seen: Preview) -> str:
    if seen.speed is None:
        return "speed: unknown, since no measurement covers this setting"
    text = f"speed, computed: {seen.speed:,.0f} unique tokens a second"
    if seen.tokens:
        work = seen.tokens.work
        hours = work.unique_tokens * seen.topology.processes / seen.speed / 3600
        all_ = hours * work.steps / max(work.steps_per_epoch, 1)
        text += f", {hours:,.1f} hours an epoch and {all_:,.1f} in all"
    return f"{text}; assumes the share of the card's matrix rate that an H100 reached"


def describe_fit(memory: Memory) -> str:
    """A line that says whether the plan fits, and which change would make it fit."""
    total = gib(memory.plan.total)
    if memory.capacity is None:
        return f"needs {total} a device; add --gpu T4 or --gpu-memory 12GB to see whether it fits"
    capacity = gib(memory.capacity)
    if memory.fits:
        return f"fits: {total} of {capacity}"
    text = f"does not fit: {total} of {capacity}"
    if memory.suggestion is None:
        return f"{text}; no single recipe change was found that would make it fit"
    return f"{text}; with {', '.join(memory.suggestion.changes)} it takes {gib(memory.suggestion.plan.total)}"


def _name(dtype: Any) -> str | None:
    return None if dtype is None else str(dtype).removeprefix("torch.")
