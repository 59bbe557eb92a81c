"""Memory: how much is available, how much was taken, and sizes in words."""

from __future__ import annotations

import ctypes
import errno
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from lrc.runtime.cgroups import memory_left
from lrc.runtime.errors import RecipeError
from lrc.runtime.translation import _

STATUS = Path("/proc/self/status")
KEPT_BYTES = 2**29
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # from glibc's malloc.h
UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}


def available_memory() -> int:
    """The bytes that can be allocated without swapping, as estimated by the system, within the limit of a container."""
    import psutil

    free, left = int(psutil.virtual_memory().available), memory_left()
    return free if left is None else min(free, left)


def free_swap() -> int:
    """The free bytes of swap space, or of Windows' page file."""
    import psutil

    return int(psutil.swap_memory().free)


def peak_memory() -> int:
    """The most bytes that this process has had in memory so far."""
    # On Linux, getrusage would include what ran in this process before `execve`.
    if STATUS.is_file() and (found := re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text(encoding="utf-8"))):
        return int(found.group(1)) * 1024
    try:
        import resource
    except ImportError:  # on Windows
        import psutil

        usage = psutil.Process().memory_info()
        return int(getattr(usage, "peak_wset", usage.rss))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def keep_freed_memory() -> None:
    """Have glibc's malloc keep up to `KEPT_BYTES` of freed memory; nothing changes with other C libraries.

    By default, it takes large blocks from the kernel one by one and returns each as soon as it is freed. A forward
    without a backward allocates and frees tensors of the same sizes in every layer, so that the kernel would clear the
    same memory again and again: for a model of 0.5B, this was a fifth of the time of answering.
    """
    if (library := _glibc()) is not None:
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def return_freed_memory() -> None:
    """Have glibc's malloc return all free memory to the system; nothing happens with other C libraries."""
    if (library := _glibc()) is not None:
        library.malloc_trim(0)


@cache
def _glibc() -> Any:
    library = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    return library if hasattr(library, "gnu_get_libc_version") else None


def read_memory(text: str) -> int:
    """Parse a GPU's memory, such as `12GB`, `12GiB` or `12000MB`, into bytes.

    A GB is 1024³ bytes here: a GPU sold with 12 GB has 12,288 MiB.

    Raises:
        RecipeError: it is not a memory size.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not found or not float(found[1]):
        raise RecipeError(_("--gpu-memory: {text} is not a memory size; write 12GB").format(text=repr(text)))
    if text.strip() == found[1]:
        raise RecipeError(_("--gpu-memory: {text} has no unit; write {found}GB").format(text=text, found=found[1]))
    if float(found[1]) * UNITS[found[2].upper()] < UNITS["M"]:
        raise RecipeError(_("--gpu-memory: {text} is less than 1MB; write {found}GB").format(text=text, found=found[1]))
    return round(float(found[1]) * UNITS[found[2].upper()])


def out_of_memory(error: BaseException) -> str | None:
    """A message if an exception is about a lack of memory; otherwise None."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # torch's
    if named or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return _("out of memory")
    return lack_in(str(error))


def lack_in(text: str) -> str | None:
    """A message if the text of an exception, or its traceback, is about a lack of memory; otherwise None."""
    # On Windows, torch says "not enough".
    found = re.search(r"CPUAllocator: (?:can't allocate|not enough) memory: you tried to allocate (\d+) bytes", text)
    if found:
        return _("out of memory: {size} were requested at once").format(size=format_size(int(found[1])))
    # A file that is mapped may not find room either: error 12 of Linux, and 1455 of Windows, whose page file is full.
    # And where a GPU is full, its libraries say so in their own ways.
    lacks = re.search(
        r"(?m)^MemoryError\b|out of memory|[Cc]annot allocate memory|\(os error (?:12|1455)\)"
        r"|\b(?:CU|HIP)[A-Z]+_STATUS_ALLOC_FAILED",
        text,
    )
    return _("out of memory") if lacks else None


def format_size(nbytes: int) -> str:
    """A number of bytes in words, in units of powers of 1000: `1.3 GB`, `512.0 kB`."""
    return decimal(nbytes)
