"""Memory that is freed and needed again is not taken from the kernel each time."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from lrc.runtime.memory import out_of_memory

PROGRAM = """
import resource
from lrc.runtime.memory import keep_freed_memory
if {kept}:
    keep_freed_memory()
for _ in range(10):
    first, second = b"x" * 40_000_000, b"x" * 48_000_000
    del first, second
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_freed_memory_is_used_again() -> None:
    kept, returned = (
        int(subprocess.run([sys.executable, "-c", PROGRAM.format(kept=on)], capture_output=True, check=True).stdout)
        for on in (True, False)
    )
    # 88 MB are 21,500 pages; without it, the kernel clears them in each of the ten rounds.
    assert kept < 50_000 < 150_000 < returned


@pytest.mark.parametrize("library", ["CUBLAS", "CUDNN", "HIPBLAS"])
def test_a_library_that_finds_no_memory_on_a_gpu_lacks_memory(library: str) -> None:
    text = f"CUDA error: {library}_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
    assert out_of_memory(RuntimeError(text)) == "out of memory"
    assert out_of_memory(RuntimeError(text.replace("ALLOC_FAILED", "NOT_SUPPORTED"))) is None
