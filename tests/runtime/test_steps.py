"""A verb that runs others: it has the last word when a signal comes, and its steps end with it, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

PATIENCE = 60.0
# Verbs with their own door, of which only the work is replaced: it says which process does it, and takes long.
WORK = "import os, sys, time\ndef work(*a, **k):\n    print('working', os.getpid(), flush=True)\n    time.sleep(60)\n"
CHECK = f"{WORK}from lrc import cli\ncli.cli.commands['check'].callback = work\ncli.main(['check', 'a.xlsx'])"
SFT = (
    f"{WORK}import runpy\nfrom lrc.runtime import packages\npackages.check_installed_or_exit = work\n"
    "runpy.run_module('lrc.sft', run_name='__main__')"
)
TRAIN = (
    f"{WORK}from lrc import cli\nfrom lrc.commands import train\ntrain.preflight = work\n"
    "cli.main(['train', 'tiny/lora'])"
)
DOORS = {"check": CHECK, "train": TRAIN, "sft": SFT}


def start(step: str, verb: str = "run a.xlsx b.xlsx --output-dir c") -> tuple[subprocess.Popen[str], int]:
    """A verb that runs a step, and the step's process id once it is at work."""
    code = (
        "from lrc import cli\nfrom lrc.runtime.steps import call\n"
        f"cli.cli.commands[{verb.split()[0]!r}].callback = lambda **_: call(['python', '-c', {step!r}])\n"
        f"cli.main({verb.split()!r})"
    )
    verb_process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert verb_process.stdout is not None
    return verb_process, int(verb_process.stdout.readline().split()[1])


def interrupt_both(verb: int) -> None:
    """What a terminal does at Ctrl-C."""
    os.killpg(verb, signal.SIGINT)


def terminate_verb(verb: int) -> None:
    os.kill(verb, signal.SIGTERM)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(("stop", "status", "word"), [(interrupt_both, 130, "interrupted"), (terminate_verb, 143, "")])
def test_a_signal_is_told_once(door: str, stop: Callable[[int], None], status: int, word: str) -> None:
    verb, step = start(DOORS[door])
    stop(verb.pid)
    told = [line for line in verb.communicate(timeout=PATIENCE)[1].splitlines() if line]
    assert told == [f"lrc: {word or 'terminated'}; what is done stays, and the same command goes on from there"]
    assert verb.returncode == status and not psutil.pid_exists(step)


@pytest.mark.parametrize("verb", ["demo", "train tiny/lora --folds 2"])
def test_every_verb_that_runs_others_has_one_last_word(verb: str) -> None:
    running, _step = start(CHECK, verb)
    interrupt_both(running.pid)
    told = [line for line in running.communicate(timeout=PATIENCE)[1].splitlines() if line]
    assert len(told) == 1 and told[0].startswith("lrc: interrupted; ")


@pytest.mark.skipif(not sys.platform.startswith(("linux", "darwin")), reason="a pipe is handed to the step")
@pytest.mark.parametrize("door", DOORS)
def test_a_step_ends_where_its_verb_was_killed(door: str) -> None:
    verb, step = start(DOORS[door])
    running = psutil.Process(step)
    verb.kill()
    verb.wait()
    end = time.monotonic() + PATIENCE
    while running.is_running() and running.status() != psutil.STATUS_ZOMBIE and time.monotonic() < end:
        time.sleep(0.05)
    assert not psutil.pid_exists(step) or running.status() == psutil.STATUS_ZOMBIE


@pytest.mark.skipif(sys.platform == "win32", reason="several processes need POSIX")
def test_the_processes_of_a_launch_end_where_their_launcher_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "work.py"
    script.write_text(
        "import os, time\nfrom lrc.runtime.steps import end_with_caller\nend_with_caller()\n"
        "print('working', os.getpid(), flush=True)\ntime.sleep(120)\n",
        encoding="utf-8",
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = {**os.environ, "LRC_STEP": "7:1", "OMP_NUM_THREADS": "1"}  # as under `lrc run`, whose pipe it lacks
    with subprocess.Popen(launch, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment) as run:
        assert run.stdout is not None
        workers = [psutil.Process(int(run.stdout.readline().split()[1])) for _ in range(2)]
        time.sleep(1.5)
        assert all(worker.is_running() for worker in workers)
        run.kill()
        _ended, left = psutil.wait_procs(workers, timeout=PATIENCE)
    for worker in left:
        worker.kill()
    assert not left


@pytest.mark.skipif(sys.platform == "win32", reason="signals cannot be held")
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["before", "between", "started"])
def test_a_signal_in_the_first_moments_of_a_step_ends_it(stop: int, moment: str, tmp_path: Path) -> None:
    """Before its process is there, in between, and while Python starts in it and imports what takes a second."""
    (tmp_path / "sitecustomize.py").write_text("import time\ntime.sleep(0.5)\n", encoding="utf-8")
    step = f"{WORK}from lrc import cli\ncli.main(['--version'])\nwork()"
    code = f"""
import os, threading
from contextlib import contextmanager
from lrc import cli
from lrc.runtime import steps

start = steps._start
def strike(command):
    if {moment!r} == "between":
        os.kill(os.getpid(), {int(stop)})
    process = start(command)
    if {moment!r} == "started":
        threading.Timer(0.2, os.killpg, (os.getpid(), {int(stop)})).start()
    return process
steps._start = strike

deferred = steps.deferred
@contextmanager
def strike_before(**options):
    with deferred(**options) as request:
        if {moment!r} == "before":
            os.kill(os.getpid(), {int(stop)})
        yield request
steps.deferred = strike_before

os.environ["PYTHONPATH"] = {str(tmp_path)!r}
cli.cli.commands["demo"].callback = lambda **_: steps.call(["python", "-c", {step!r}])
cli.main(["demo"])
"""
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, start_new_session=True)
    assert done.returncode == 128 + stop and "working" not in done.stdout
    told = [line for line in done.stderr.splitlines() if line]
    assert len(told) == 1 and told[0].startswith("lrc: "), done.stderr
    assert time.monotonic() - begun < 50


def test_what_only_inherits_the_variable_takes_no_other_file_for_the_pipe(tmp_path: Path) -> None:
    """As the processes of a launch do, to which no file of their launcher is handed."""
    other = (tmp_path / "other").open("w+")  # ends at once where it is read
    reading, writing = os.pipe()
    os.close(writing)
    code = (
        "import time\nfrom lrc.runtime.steps import end_with_caller\nend_with_caller()\ntime.sleep(0.5)\nprint('there')"
    )
    for handle in (other.fileno(), reading):
        environment = {**os.environ, "LRC_STEP": f"{handle}:1"}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, pass_fds=(handle,), capture_output=True, text=True
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "there\n", "")


def test_an_exit_status_is_passed_on() -> None:
    code = "import sys\nfrom lrc.runtime.steps import call\nsys.exit(call(['python', '-c', {step!r}]))"
    for step, status in {"import sys; sys.exit(3)": 3, "import os; os.kill(os.getpid(), 9)": 137, "": 0}.items():
        assert subprocess.run([sys.executable, "-c", code.format(step=step)]).returncode == status


def test_a_file_of_the_working_folder_takes_no_modules_place(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise SystemExit('mine')", encoding="utf-8")
    (tmp_path / "lrc").mkdir()
    (tmp_path / "lrc" / "__init__.py").touch()
    code = "import sys\nsys.path.pop(0)\nfrom lrc.runtime.steps import call\nsys.exit(call(['completion', 'fish']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "complete --no-files --command lrc" in done.stdout, done.stderr
