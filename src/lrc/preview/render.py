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
from lrc.preview.memory_plan import PARTS, MemoryPlan, gib, parts_by_name
from lrc.preview.precision import Precision
from lrc.preview.suggestions import Suggestion
from lrc.preview.token_view import TokenView
from lrc.preview.workload import Workload
from lrc.runtime.cards import Card
from lrc.runtime.findings import name_line, print_lines
from lrc.runtime.translation import _, localized
from lrc.tokenization.prompt import Prompt
from lrc.tokenization.token_dataset import Corpus


@dataclass(frozen=True)
class Tokens:
    """The results about the data."""

    prompt: Prompt
    corpus: Corpus
    shown: list[TokenView]  # examples
    work: Workload
    rates: dict[int, float]  # the learning rate at some steps


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
        "learning_rates": tokens.rates,
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
    """Print the results, first whether they fit: in colours in a terminal, else as plain lines with ⟦…⟧ around
    supervised tokens.
    """
    if seen.memory:
        print_lines(describe_fit(seen.memory), "")
        sys.stdout.flush()
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
        print_lines(MALLOC if seen.topology.device == "cpu" else COMPUTED)
        if seen.card:
            print_lines(_speed(seen))


def _lines(seen: Preview) -> Iterator[str]:
    return (name_line(name, text) for name, text in _facts(seen))


def _facts(seen: Preview) -> Iterator[tuple[str, str]]:
    given, where = seen.recipe.data, seen.topology
    yield _("base"), str(seen.recipe.model.model_name_or_path)
    text = _("{name}: {kind}, {processes} x {device}")
    kind = _("one process") if where.kind == "one process" else where.kind
    yield _("launch"), text.format(name=where.name, kind=kind, processes=where.processes, device=where.device)
    if seen.card:
        yield _("card"), _("{card}: {about}").format(card=seen.card.name, about=seen.card.about)
    for place, reason in enumerate(seen.precision.reasons):
        yield _("dtypes") if place == 0 else "", reason
    text = _("template {template}, answers as {style}, options not listed")
    if given.list_options:
        text = _("template {template}, answers as {style}, options listed")
    yield _("prompt"), text.format(template=given.template, style=given.answer_style)
    text = _("at most {tokens:,} tokens")
    if seen.not_shared:
        text = _("at most {tokens:,} tokens; each question has a row of its own: {reason}")
    yield _("rows"), text.format(tokens=seen.row_tokens, reason=seen.not_shared or "")
    if seen.tokens:
        yield from _about_tokens(seen, seen.tokens, seen.tokens.work)


def _about_tokens(seen: Preview, tokens: Tokens, work: Workload) -> Iterator[tuple[str, str]]:
    args, tokenizer = seen.recipe.training, tokens.prompt.tokenizer
    text = _("{kind}, {size:,} tokens")
    yield _("tokenizer"), text.format(kind=tokenizer_backend(tokenizer), size=len(tokenizer))
    if merging := sum(specimen.merges for specimen in tokens.shown):
        text = _(
            "in {merging} of {shown} examples prompt and answer share a token; they are tokenized separately, in "
            "training and in answering"
        )
        yield _("boundary"), text.format(merging=merging, shown=len(tokens.shown))
    text = _("{questions:,}, {step} a step")
    yield _("questions"), text.format(questions=work.questions, step=work.step_questions)
    for what, ids in ((_("shortened"), tokens.corpus.shortened), (_("left out"), tokens.corpus.skipped)):
        text = _("{count:,} to fit max_length {length}: {ids}") if ids else _("{count:,} to fit max_length {length}")
        yield what, text.format(count=len(ids), length=args.max_length, ids=tuple(ids))
    lengths = tuple(f"p{p} {length:,}" for p, length in work.lengths.items())
    yield _("lengths"), _("{lengths} tokens").format(lengths=lengths)
    yield from _about_work(work, seen.topology)
    text = _("{rate:.2e} at step {step:,}")
    rates = tuple(text.format(rate=rate, step=step) for step, rate in tokens.rates.items())
    kind = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)
    yield _("learning rate"), _("{kind}: {rates}").format(kind=kind, rates=rates)


def _about_work(work: Workload, topology: Topology) -> Iterator[tuple[str, str]]:
    text = _(
        "about {separate:,} an epoch unpacked, {unique:,} computed ({sharing:.2f}x sharing), {supervised:,} supervised"
    )
    if work.exact:
        text = _(
            "{separate:,} an epoch unpacked, {unique:,} computed ({sharing:.2f}x sharing), {supervised:,} supervised"
        )
    counts = {"separate": work.separate_tokens, "unique": work.unique_tokens, "supervised": work.supervised_tokens}
    yield _("tokens"), text.format(**counts, sharing=work.sharing)
    rows = _("about {rows:,}") if not work.exact else _("{rows:,}")
    text = _("{an_epoch:,} an epoch, {steps:,} in all; {rows} rows an epoch, the longest {longest:,} tokens")
    if topology.processes > 1:
        text = _(
            "{an_epoch:,} an epoch, {steps:,} in all; {rows} rows an epoch a process, the longest {longest:,} tokens"
        )
    steps = {"an_epoch": work.steps_per_epoch, "steps": work.steps, "longest": work.longest_row}
    yield _("steps"), text.format(**steps, rows=rows.format(rows=work.rows_per_epoch))


def _heading(specimen: TokenView) -> str:
    text = _("id {id}: {tokens} tokens, {supervised} of them supervised")
    if specimen.row is not None:
        text = _("id {id} (row {row}): {tokens} tokens, {supervised} of them supervised")
    known = {"id": specimen.id, "tokens": len(specimen.ids), "supervised": sum(specimen.mask)}
    return localized(text.format(**known, row=specimen.row or 0))


def _plan(memory: Memory, topology: Topology) -> Table:
    title = _("memory of each process") if topology.device == "cpu" else _("memory of each GPU")
    table = Table(localized(title), title_justify="left")
    table.add_column("", justify="right")
    for name, nbytes in parts_by_name(memory.plan).items():
        table.add_row(localized(PARTS.get(name, name)), gib(nbytes))
    table.add_section()
    table.add_row(localized(_("in all")), gib(memory.plan.total))
    return table


# Torch allocates aligned memory, for which glibc rarely reuses what was freed; see benchmarks/memory.py.
MALLOC = _(
    "this is allocated memory; glibc's malloc may use several hundred MB more, jemalloc hardly any: "
    "LD_PRELOAD=libjemalloc.so.2"
)


COMPUTED = _("this is computed; on one GPU, an H100, it was compared with what was measured: docs/results.md")


def _speed(seen: Preview) -> str:
    if seen.speed is None:
        return _("speed: unknown, since no measurement covers this setting")
    text = _(
        "speed, computed: {speed:,.0f} unique tokens a second; assumes the share of the card's matrix rate that an "
        "H100 reached"
    )
    if not seen.tokens:
        return text.format(speed=seen.speed)
    text = _(
        "speed, computed: {speed:,.0f} unique tokens a second, {hours:,.1f} hours an epoch and {all:,.1f} in all; "
        "assumes the share of the card's matrix rate that an H100 reached"
    )
    work = seen.tokens.work
    hours = work.unique_tokens * seen.topology.processes / seen.speed / 3600
    return text.format(speed=seen.speed, hours=hours, all=hours * work.steps / max(work.steps_per_epoch, 1))


def describe_fit(memory: Memory) -> str:
    """A line that says whether the plan fits, and which change would make it fit."""
    total = gib(memory.plan.total)
    if memory.capacity is None:
        text = _("needs {total} a device; add --gpu T4 or --gpu-memory 12GB to see whether it fits")
        return text.format(total=total)
    sizes = {"total": total, "capacity": gib(memory.capacity)}
    if memory.fits:
        return _("fits: {total} of {capacity}").format(**sizes)
    if memory.suggestion is None:
        text = _("does not fit: {total} of {capacity}; no single recipe change was found that would make it fit")
        return text.format(**sizes)
    text = _("does not fit: {total} of {capacity}; with {changes} it takes {smaller}")
    return text.format(**sizes, changes=tuple(memory.suggestion.changes), smaller=gib(memory.suggestion.plan.total))


def _name(dtype: Any) -> str | None:
    return None if dtype is None else str(dtype).removeprefix("torch.")
