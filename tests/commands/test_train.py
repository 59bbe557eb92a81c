"""What `lrc train` starts, and what it says of processes that end."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from accelerate.commands import launch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from lrc.commands import train as way
from lrc.config.accelerate_config import read_topology
from lrc.config.shipped import shipped_files

EXIT, TERM, KILL = 1, -signal.SIGTERM, -signal.SIGKILL


class Started(Exception):
    """Ends `lrc train` where the run would begin."""


@pytest.mark.parametrize(
    ("visible", "gpu_ids", "expected"),
    [
        (None, "0", "0"),
        ("3", "0", "3"),
        ("2,3", "0", "2"),
        ("2,3", "1", "3"),
        ("3", "3", "3"),  # counted among all cards
        ("MIG-0f3a", "0", "MIG-0f3a"),
        ("GPU-1a, GPU-2b", "1", "GPU-2b"),
    ],
)
def test_a_run_keeps_to_the_gpus_that_are_visible(
    visible: str | None, gpu_ids: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """accelerate would give it the first GPU of the machine, which is another one's."""
    shipped = (Path(__file__).parents[2] / "accelerate_configs" / "single_gpu.yaml").read_text(encoding="utf-8")
    config = tmp_path / "own.yaml"
    config.write_text(shipped.replace("gpu_ids: '0'", f"gpu_ids: '{gpu_ids}'"), encoding="utf-8")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = {}

    def start(command: list[str], environment: dict[str, str]) -> None:
        found.update(os.environ | environment)
        raise Started

    monkeypatch.setattr(way, "preflight", lambda recipe, overrides: None)
    monkeypatch.setattr(way, "_replace_process", start)
    with pytest.raises(Started):
        way.train("tiny/lora", str(config), [])
    assert found["CUDA_VISIBLE_DEVICES"] == expected


# What `num_processes` is in each shipped file, and whether `lrc train` starts as many processes as there are GPUs.
COUNTS = {
    "cpu": (1, False),
    "cpu_2": (2, False),
    "single_gpu": (1, False),
    "low_memory": (1, False),
    "multi_node": (16, False),
    "multi_gpu": (2, True),
    "deepspeed_zero2": (1, True),
    "deepspeed_zero3": (2, True),
    "fsdp": (2, True),
    "fsdp_qlora": (2, True),
}


@pytest.mark.parametrize("gpus", [0, 1, 2, 3, 8, 20])
@pytest.mark.parametrize("name", shipped_files("accelerate_configs"))
def test_all_visible_gpus_train_together(
    name: str, gpus: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.accelerator.is_available", lambda: gpus > 0)
    monkeypatch.setattr("torch.accelerator.device_count", lambda: gpus)  # of those that CUDA_VISIBLE_DEVICES leaves
    monkeypatch.setattr(way, "preflight", lambda recipe, overrides: None)
    launched: list[list[str]] = []
    monkeypatch.setattr(way, "_launch", lambda words: launched.append(list(words)) or 0)
    said, grows = COUNTS[name]
    wanted = max(said, gpus) if grows else said
    assert way.train("tiny/lora", name, []) == 0
    assert processes_of(launched[-1]) == wanted
    assert ("--num_processes" in capsys.readouterr().err) == (wanted > said)
    assert read_topology(name, device="cuda", gpu_assumed=False).processes == wanted  # which `lrc preview` plans for
    own = shutil.copy(shipped_files("accelerate_configs")[name], tmp_path / f"{name}.yaml")
    way.train("tiny/lora", str(own), [])
    assert processes_of(launched[-1]) == said
    assert read_topology(str(own), device="cuda", gpu_assumed=False).processes == said


def processes_of(words: list[str]) -> int:
    """How many processes accelerate's own launcher makes of a command line."""
    arguments = launch.launch_command_parser().parse_args(words)
    count: int = launch._validate_launch_command(arguments)[0].num_processes
    return count


@pytest.mark.parametrize("gpus", [1, 2, 8])
def test_a_preview_plans_for_the_launch_that_no_config_was_named_for(
    gpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    monkeypatch.setattr("torch.accelerator.device_count", lambda: gpus)
    found = read_topology(None, device="cuda", gpu_assumed=False)
    assert (found.processes, found.name) == (gpus, "single_gpu" if gpus == 1 else "multi_gpu")


@pytest.mark.parametrize(
    ("codes", "times", "status", "told"),
    [
        # The others wait in a collective of NCCL, in which no signal is handled; torch kills them after 30 seconds.
        ([KILL, EXIT], [30, 0], 1, ""),
        ([KILL, TERM, EXIT], [31, 1, 0], 1, ""),
        ([KILL, EXIT], [0, 0], 137, "process 0 of the run was ended by SIGKILL (the system does this"),
        ([TERM, KILL], [1, 0], 137, "process 1 of the run was ended by SIGKILL (the system does this"),
        ([KILL, KILL], [30, 0], 137, "process 1 of the run was ended by SIGKILL (the system does this"),
    ],
)
def test_the_process_that_failed_first_is_named(
    codes: list[int],
    times: list[int],
    status: int,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    failures = {}
    for rank, (code, seconds) in enumerate(zip(codes, times, strict=True)):
        monkeypatch.setattr("time.time", lambda seconds=seconds: 1_700_000_000 + seconds)
        failures[rank] = ProcessFailure(local_rank=rank, pid=100 + rank, exitcode=code, error_file="none")

    class Launch:
        def launch_command(self, args: object) -> None:
            raise ChildFailedError("lrc.sft", failures)

    monkeypatch.setattr("logging.disable", lambda level: None)
    assert way._watch(Launch(), None) == status
    printed = capsys.readouterr().err
    assert (told in printed) if told else not printed
