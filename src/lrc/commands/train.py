"""`lrc train RECIPE`: runs `accelerate launch … -m lrc.sft`, but with the run's exit status and without tracebacks."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

from lrc.config.accelerate_config import (
    count_processes,
    default_accelerate_config,
    find_accelerate_config,
    load_accelerate_config,
)
from lrc.config.recipe import find_recipe
from lrc.runtime.errors import MachineError
from lrc.runtime.launch_variables import refuse_leftovers
from lrc.runtime.progress import IMPORTS, notify, show_command, waiting
from lrc.runtime.signals import LAST_WORDS, deferred, ending_with, held
from lrc.runtime.system import SAFE_PATH, WINDOWS, command_line
from lrc.runtime.threads import share_cores
from lrc.runtime.translation import _
from lrc.training.preflight import preflight

GRACE = 25  # seconds; torch's elastic agent waits 30 between SIGTERM and SIGKILL


def train(recipe: str, accelerate_config: str | None, overrides: Sequence[str]) -> int:
    """Launch a training run and wait for it.

    A run of one process replaces this one (exec), so that it gets signals itself, and its exit status is that of the
    command. Several processes are watched by torch's elastic agent, as with `accelerate launch`.

    Args:
        recipe: a YAML file, or the name of a shipped one.
        accelerate_config: likewise; None takes one that suits this machine.
        overrides: `--key value` for any key of the recipe.

    Returns:
        The exit status of the run.

    Raises:
        LrcError: there is no such recipe or config, or the run cannot be started on this machine.
    """
    with ending_with(_("checkpoints are kept, and the same command goes on from the last one")):
        refuse_leftovers()
        path = find_recipe(recipe)
        named = find_accelerate_config(accelerate_config) if accelerate_config else None
        preflight(path, overrides)
        with waiting(IMPORTS):
            config = named or find_accelerate_config(default_accelerate_config())
            settings = load_accelerate_config(config)
        launch = ["--config_file", str(config), *_all_devices(config, settings), *_visible_gpus(settings)]
        words = [*launch, "-m", "lrc.sft", "--config", str(path), *overrides]
        show_command(f"accelerate launch {command_line(words)}")
        return _launch(words)


def _all_devices(path: Path, settings: Any) -> list[str]:
    """The number of processes, if the machine has GPUs for more than the config says."""
    count = count_processes(path, settings)
    return ["--num_processes", str(count)] if count > max(settings.num_processes or 1, 1) else []


def _visible_gpus(config: Any) -> list[str]:
    """The config's GPUs among those that CUDA_VISIBLE_DEVICES leaves: accelerate would overwrite the variable."""
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    named = str(getattr(config, "gpu_ids", None) or "all")
    if not visible or named == "all":
        return []
    places = [int(place) for place in named.split(",") if place.strip().isdigit()]
    chosen = [visible[place] for place in places if place < len(visible)]
    return ["--gpu_ids", ",".join(chosen if len(chosen) == len(places) else visible)]


def _launch(words: Sequence[str]) -> int:
    with waiting(IMPORTS):
        from accelerate.commands import launch
        from accelerate.utils.launch import prepare_simple_launcher_cmd_env

    logging.getLogger("accelerate.commands.launch").setLevel(logging.ERROR)  # no warnings about defaults
    args, _config, _precision = launch._validate_launch_command(launch.launch_command_parser().parse_args(list(words)))
    if (args.num_machines or 1) > 1 and not args.main_process_ip:
        raise MachineError(
            _(
                "{config_file}: main_process_ip is missing; give the address of machine 0, and each "
                "machine its own machine_rank, in a copy of the file"
            ).format(config_file=args.config_file)
        )
    if not (args.multi_gpu or args.use_deepspeed or args.use_fsdp or args.tpu):
        command, environment = prepare_simple_launcher_cmd_env(args)
        share_cores(environment)
        environment |= SAFE_PATH
        sys.stdout.flush()
        if WINDOWS:  # which has no exec
            with deferred(insist=False):  # the terminal also interrupts the run, which saves a checkpoint first
                return subprocess.run(command, env=environment).returncode
        _replace_process(command, environment)
    if WINDOWS:
        raise MachineError(
            _(
                "{config_file}: training with several processes needs Linux; use WSL2, or "
                "--accelerate-config single_gpu"
            ).format(config_file=args.config_file)
        )
    os.environ |= SAFE_PATH
    share_cores(os.environ, args.num_processes or 1)
    return _watch(launch, launch.launch_command_parser().parse_args(list(words)))


def _replace_process(command: list[str], environment: Mapping[str, str]) -> NoReturn:
    """Become the run; a signal in the meantime ends this process, or waits for the run, which releases it."""
    for number in LAST_WORDS:  # a handler of this process would only note it, in whichever thread it came
        signal.signal(number, signal.SIG_DFL)
    with held() if command[0] == sys.executable else nullcontext():  # mpirun would not release it
        os.execvpe(command[0], command, environment)


def _watch(launch: Any, args: Any) -> int:
    """Run several processes, and return the exit status of the first that failed or was killed."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # The processes report errors themselves; the agent would print a page of tracebacks.
    logging.disable(logging.ERROR)
    try:
        launch.launch_command(args)
    except ChildFailedError as error:
        return _status(error)
    except SignalException as error:
        notify(_("launch: ended by {signal}").format(signal=signal.Signals(error.sigval).name))
        return 128 + int(error.sigval)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except (ImportError, ValueError, AssertionError) as error:
        raise MachineError(_("launch: {reason}; choose another --accelerate-config").format(reason=error)) from error
    return 0


def _status(error: Any) -> int:
    """The exit status of a launch in which a process failed; one that was killed is reported here."""
    # The agent ends the others with SIGTERM, and after `GRACE` with SIGKILL, where they wait in a collective of NCCL.
    # They may have noticed the loss before: then they end with an error of their own, or with SIGABRT from the thread
    # of a collective. So any other signal is the cause.
    cause = error.get_first_failure()[1]
    killed = [(rank, failure) for rank, failure in error.failures.items() if failure.exitcode < 0]
    by_agent = {rank for rank, failure in killed if failure.timestamp - cause.timestamp >= GRACE}
    struck = [
        (rank, -failure.exitcode)
        for rank, failure in killed
        if failure.exitcode != -signal.SIGTERM and not (failure.exitcode == -signal.SIGKILL and rank in by_agent)
    ]
    if struck:
        rank, number = min(struck, key=lambda one: (one[1] == signal.SIGABRT, one[0]))
        text = _(
            "launch: process {rank} of the run was ended by {signal}; the others were stopped; run again to resume "
            "from the last checkpoint"
        )
        if number == signal.SIGKILL:
            text = _(
                "launch: process {rank} of the run was ended by {signal} (the system does this when memory runs out); "
                "the others were stopped; run again to resume from the last checkpoint"
            )
        notify(text.format(rank=rank, signal=signal.Signals(number).name))
        return 128 + number
    code: int = cause.exitcode
    return code if code > 0 else 128 - code
