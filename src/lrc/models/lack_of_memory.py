"""Says what did not fit where memory runs out while a model is loaded, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from traceback import walk_tb
from typing import Any

import torch

from lrc.runtime.errors import LrcError, MachineError
from lrc.runtime.memory import available_memory, format_size, lack_in, out_of_memory
from lrc.runtime.translation import _

CLOSE_OTHERS = _("close other programs, or use a machine with more memory")


@dataclass(frozen=True)
class Room:
    """What is loaded, the memory that there is for it, and what to do if that is too little.

    Args:
        name: a folder, or a name on the Hub.
        cure: what to do.
        free: what was free before, see `free_in_words`.
        count: counts the bytes of the weights. It is called only if memory has run out.
    """

    name: str
    cure: str = CLOSE_OTHERS
    free: tuple[str, ...] = ()
    count: Callable[[], int] | None = None

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn a lack of memory in the block into one line.

        Raises:
            MachineError: memory ran out.
        """
        try:
            yield
        except LrcError:
            raise
        except Exception as error:
            if (lack := find_lack(error)) is None:
                raise
            raise MachineError(self._describe(lack)) from error

    def _describe(self, lack: str) -> str:
        facts = self.free
        with suppress(Exception):  # whatever it is, the lack of memory is what has to be told
            if self.count is not None:
                facts = (_("its weights take {needed}").format(needed=format_size(self.count())), *facts)
        if not facts:
            return _("{name}: cannot be loaded, {lack}; {cure}").format(name=self.name, lack=lack, cure=self.cure)
        text = _("{name}: cannot be loaded, {lack} ({facts}); {cure}")
        return text.format(name=self.name, lack=lack, facts=facts, cure=self.cure)


def free_in_words(device_map: Any) -> tuple[str, ...]:
    """How much memory is free on the devices of a device map, as far as is known.

    Args:
        device_map: as in transformers; None stands for main memory.
    """
    places = device_map.values() if isinstance(device_map, Mapping) else [device_map or "cpu"]
    words = []
    for place in dict.fromkeys(str(place) for place in places):
        if place == "cpu":
            words.append(_("{free} of memory were free").format(free=format_size(available_memory())))
        elif place.isdecimal() or place.partition(":")[0] == "cuda":
            # Some drivers do not tell; torch without CUDA fails by an assertion.
            with suppress(RuntimeError, AssertionError):
                number = place.rpartition(":")[2]
                index = int(number) if number.isdecimal() else torch.cuda.current_device()
                free = format_size(torch.cuda.mem_get_info(index)[0])
                words.append(_("GPU {index} had {free} free").format(index=index, free=free))
    return tuple(words)


def find_lack(error: BaseException) -> str | None:
    """A message if an exception, or one that it was made of, is about a lack of memory; otherwise None.

    transformers notes what fails while it quantizes or converts weights in a report, and goes on. In the end, it raises
    an exception that only points to that report.
    """
    one: BaseException | None = error
    while one is not None:
        if lack := out_of_memory(one):
            return lack
        for noted in conversion_errors(one):
            if lack := lack_in(noted):
                return lack
        one = one.__cause__ or one.__context__
    return None


def conversion_errors(error: BaseException) -> Iterator[str]:
    """What transformers has noted of weights that it could not convert, when it raised an exception; tracebacks."""
    for frame, _line in walk_tb(error.__traceback__):
        if not str(frame.f_globals.get("__name__")).startswith("transformers."):
            continue
        for value in frame.f_locals.values():
            if type(value).__name__ == "LoadStateDictInfo":
                yield from value.conversion_errors.values()


def first_conversion_error(error: BaseException) -> str | None:
    """The text of the first exception that transformers has noted; None if there is none."""
    for noted in conversion_errors(error):
        if found := re.search(r"^\w[\w.]*(?:Error|Exception): (.+)", noted, re.MULTILINE):
            return found[1]
    return None
