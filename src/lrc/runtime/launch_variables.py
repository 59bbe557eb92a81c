"""Checks the environment variables by which a launcher tells a process its rank, and removes those left over.

If a shell or a job script has exported them, they outlive their launch. A single process would then take itself for one
of several, and wait for the others forever.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

from lrc.runtime.errors import MachineError
from lrc.runtime.translation import _, alternatives

# The number of processes, and the rank of this one, in the order in which accelerate looks.
SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "WORLD_SIZE")
RANKS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK", "RANK")
LOCAL_RANKS = ("MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_RANK", "LOCAL_RANK")
LOCAL_SIZES = ("MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE", "LOCAL_WORLD_SIZE")
ADDRESS = ("MASTER_ADDR", "MASTER_PORT")
ELASTIC = ("GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_WORLD_SIZE", "TORCHELASTIC_USE_AGENT_STORE")
PLACES = (*SIZES, *RANKS, *LOCAL_RANKS, *LOCAL_SIZES)
# Variables that ask for an engine of distributed training.
ENGINES = ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP", "ACCELERATE_USE_MEGATRON_LM", "ACCELERATE_USE_SAGEMAKER")
TRUE, FALSE = ("1", "true", "yes", "y", "t", "on"), ("0", "false", "no", "n", "f", "off", "")
PRECISIONS = ("no", "fp16", "bf16", "fp8")
CURE = _("left over from another launch? {cure}, or start the processes with `accelerate launch` or `lrc train`")


def forget_launch() -> None:
    """Remove the launch from the environment, for commands that run in one process however they are started."""
    for name in (*PLACES, *ADDRESS, *ELASTIC, *ENGINES):
        os.environ.pop(name, None)


def refuse_leftovers() -> None:
    """Refuse to launch from within a launch, or from a shell in which one has left its variables.

    Raises:
        MachineError: a variable says that this is one of several processes, or asks for an engine.
    """
    several = [name for name in SIZES if os.environ.get(name, "1") != "1"]
    placed = [name for name in (*RANKS, *LOCAL_RANKS) if os.environ.get(name, "0") not in ("0", "-1")]
    engines = [name for name in ENGINES if os.environ.get(name, "").lower() not in FALSE]
    found = {name: os.environ[name] for name in (*several, *placed, *engines)}
    there = _set(*PLACES, *ADDRESS, *ELASTIC, *engines)
    forget_launch()
    if found:
        name = next(iter(found))
        raise MachineError(
            _(
                "{name}: is {found} in the environment, and `lrc train` starts its processes itself; "
                "{unset}, and run again"
            ).format(name=name, found=found[name], unset=_unset(there))
        )


def check_launch() -> None:
    """Check a launcher's environment variables, before anything waits for processes that never come.

    MPI's variables are translated to torch's; those of a single process are removed.

    Raises:
        MachineError: the variables contradict each other, or one is missing.
    """
    try:
        _check()
    except MachineError:
        forget_launch()  # this process is alone, and has to report the error
        raise


def _check() -> None:
    _check_accelerate()
    sizes = {name: _number(name) for name in _set(*SIZES)}
    if len(set(sizes.values())) > 1:
        each = [_("{name} is {value}").format(name=name, value=size) for name, size in sizes.items()]
        what = _("{values}, but they must be equal").format(values=alternatives(each, _("{words}, and {last}")))
        raise _refusal(next(iter(sizes)), what, next(iter(sizes)))
    size = next(iter(sizes.values()), None)
    rank, local = _first(RANKS), _first(LOCAL_RANKS)
    if size is None and (rank or (local or 0) > 0):
        name = _set(*RANKS, *LOCAL_RANKS)[0]
        what = _("is {value}, but WORLD_SIZE is not set").format(value=os.environ[name])
        raise _refusal(name, what, *_set(*PLACES))
    if size is None or size == 1 and not rank and len(_set(*ADDRESS)) < len(ADDRESS):
        for name in PLACES:
            os.environ.pop(name, None)
        return
    _check_place(size, rank, next(iter(sizes)))
    os.environ |= {"WORLD_SIZE": str(size), "RANK": str(rank)}
    if local is not None:
        os.environ["LOCAL_RANK"] = str(local)


def _check_place(size: int, rank: int | None, source: str) -> None:
    if size < 1:
        raise _refusal(source, _("is {value}, expected 1 or more").format(value=size), source)
    missing = _("is missing, but {source} is {size}").format(source=source, size=size)
    if rank is None:
        raise _refusal("RANK", missing, *_set(*PLACES))
    if not 0 <= rank < size:
        what = _("is {rank}, expected 0 to {last}, since {source} is {size}")
        what = what.format(rank=rank, last=size - 1, source=source, size=size)
        raise _refusal(_set(*RANKS)[0], what, *_set(*PLACES))
    for name in ADDRESS:
        if not os.environ.get(name):
            raise _refusal(name, missing, *_set(*PLACES))
    if not 0 < _number("MASTER_PORT") < 65536:
        what = _("is {value}, expected 1 to 65535").format(value=os.environ["MASTER_PORT"])
        raise _refusal("MASTER_PORT", what, *_set(*PLACES, *ADDRESS))


def _check_accelerate() -> None:
    for name in (*ENGINES, "ACCELERATE_USE_CPU", "ACCELERATE_DEBUG_MODE"):
        value = os.environ.get(name, "").lower()
        if value not in (*TRUE, *FALSE):
            raise MachineError(
                _("{name}: is {environ} in the environment, expected true or false; unset {name}").format(
                    name=name, environ=os.environ[name]
                )
            )
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if precision not in PRECISIONS:
        raise MachineError(
            _(
                "ACCELERATE_MIXED_PRECISION: is {precision} in the environment, expected {precisions}; "
                "unset ACCELERATE_MIXED_PRECISION"
            ).format(precision=precision, precisions=tuple(PRECISIONS))
        )
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() in TRUE and find_spec("deepspeed") is None:
        raise MachineError(
            _(
                "ACCELERATE_USE_DEEPSPEED: is set in the environment, and DeepSpeed is not installed; "
                "unset ACCELERATE_USE_DEEPSPEED, or pip install deepspeed"
            )
        )


def _refusal(name: str, what: str, *there: str) -> MachineError:
    return MachineError(
        _("{name}: {what}; {format}").format(name=name, what=what, format=CURE.format(cure=_unset(list(there))))
    )


def _unset(names: list[str]) -> str:
    return f"unset {' '.join(dict.fromkeys(names))}"  # a command


def _set(*names: str) -> list[str]:
    return [name for name in names if os.environ.get(name)]


def _first(names: tuple[str, ...]) -> int | None:
    return next((_number(name) for name in _set(*names)), None)


def _number(name: str) -> int:
    try:
        return int(os.environ[name])
    except ValueError:
        what = _("is {value}, expected a whole number").format(value=os.environ[name])
        raise _refusal(name, what, name) from None
