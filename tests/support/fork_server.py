"""A Python that has its imports behind it: programs of the tests are forked from it in a moment instead of started.

`python()` is a program that takes the place of `sys.executable` in a command. It hands `-m MODULE`, `-c CODE` or a
file, with arguments, environment, folder and its three streams, to a server that has imported torch, transformers,
TRL and the others, and not lrc; the server forks, and what it forks runs the command as Python would: lrc's own modules
are imported anew, `__main__` is the command's, and so is `sys.executable`, so that what a launcher starts is forked,
too. Signals are passed on, or wait where the caller lets them wait, and the exit status comes back. What the server
cannot do alike, another flag of Python or a variable that is read at import, is left to the real Python.

The server is started when it is first needed, serves all workers of pytest, and ends with the test session.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

FOLDER = "LRC_FORK_SERVER"  # names the folder of a test session's server to its workers
PATIENCE = 600.0  # seconds in which the server has to have done its imports, on a busy machine
PRELOADED = (
    *("torch", "transformers", "trl", "peft", "datasets", "accelerate", "safetensors.torch", "optuna"),
    *("accelerate.commands.launch", "torch.distributed.run", "torch.distributed.elastic.multiprocessing.api"),
    *("lrc.sft", "lrc.commands.convert", "lrc.commands.merge", "lrc.commands.generate", "lrc.commands.evaluate"),
    # What these import only when they run.
    *("click", "packaging.requirements", "peft.tuners.lora.bnb", "peft.utils.transformers_weight_conversion"),
    "transformers.models.llama.modeling_llama",
)
# What Python and libraries read when they are imported; of these, what is put right after the fork.
AT_IMPORT = ("HF_", "TRANSFORMERS_", "PYTHON", "LC_", "LANG", "LD_", "BNB_")
PUT_RIGHT = ("HF_DATASETS_CACHE", "PYTHONSAFEPATH")

CLIENT = """\
import json, os, signal, socket, sys
real, folder, *words = sys.argv[1:]
with open(folder + "/fixed.json") as file:
    fixed = json.load(file)
plain = [word for word in words if word != "-u"] if words[:1] == ["-u"] else words
def at_import(environment):
    return {k: v for k, v in environment.items() if k.startswith(tuple(fixed["prefixes"])) and k not in fixed["except"]}
if not plain or plain[0].startswith("-") and plain[0] not in ("-m", "-c") or at_import(os.environ) != fixed["set"]:
    os.execv(real, [real, *words])
server = socket.socket(socket.AF_UNIX)
server.connect(folder + "/socket")
request = {"words": plain, "cwd": os.getcwd(), "environment": dict(os.environ), "group": os.getpgrp()}
request["python"] = fixed["python"]
request["blocked"] = [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())]
body = json.dumps(request).encode()
socket.send_fds(server, [len(body).to_bytes(8, "big")], [0, 1, 2])
server.sendall(body)
told = server.makefile("r")
process = int(told.readline())
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, lambda number, frame: os.kill(process, number))
signal.pthread_sigmask(signal.SIG_SETMASK, ())
status = int(told.readline())
if status < 0:
    signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
    os.kill(os.getpid(), -status)
os._exit(status)
"""


def python() -> Path:
    """The program that stands in for `sys.executable`."""
    return _folder() / "bin" / "python"


def programs() -> Path:
    """A folder for PATH, with `python`, `lrc` and `accelerate`."""
    return python().parent


class Forked:
    """A process of the server's.

    Args:
        words: what follows `python`: `-m MODULE …`, `-c CODE …` or a file.
        log: where its stdout and stderr go.
        environment: variables that are set in it.
        file_limit: the most bytes that it may write into one file.
    """

    def __init__(
        self, words: Sequence[str], log: Path, environment: Mapping[str, str], file_limit: int | None = None
    ) -> None:
        request = {
            "words": list(words),
            "cwd": str(Path.cwd()),
            "environment": {**os.environ, **environment},
            "group": os.getpgrp(),
            "python": str(python()),
            "file_limit": file_limit,
        }
        body = json.dumps(request).encode()
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(str(_folder() / "socket"))
        with log.open("wb") as file, Path(os.devnull).open("rb") as nothing:
            handles = [nothing.fileno(), file.fileno(), file.fileno()]
            socket.send_fds(self._server, [len(body).to_bytes(8, "big")], handles)
            self._server.sendall(body)
        self._told = b""
        self.exitcode: int | None = None
        self.pid = int(self._line(None) or 0)

    def join(self, seconds: float | None = None) -> None:
        """Wait so long for its end, after which `exitcode` is its status; negative where a signal ended it."""
        if self.exitcode is None and (line := self._line(seconds)) is not None:
            self.exitcode = int(line)

    def is_alive(self) -> bool:
        """Whether it has not ended yet."""
        self.join(0)
        return self.exitcode is None

    def _line(self, seconds: float | None) -> bytes | None:
        end = None if seconds is None else time.monotonic() + seconds
        while b"\n" not in self._told:
            self._server.settimeout(None if end is None else max(end - time.monotonic(), 1e-6))
            try:
                more = self._server.recv(64)
            except (TimeoutError, BlockingIOError):
                return None
            assert more, "the fork server has ended"
            self._told += more
        line, _, self._told = self._told.partition(b"\n")
        return line


def at_import(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that Python and libraries read when they are imported."""
    return {name: value for name, value in environment.items() if name.startswith(AT_IMPORT)}


def begin() -> None:
    """Give this test session, and the workers that it will start, a folder for a server."""
    folder = tempfile.mkdtemp(prefix="lrc-fork-")
    (Path(folder) / "session").write_text(str(os.getpid()))
    os.environ[FOLDER] = folder


def end() -> None:
    """End the session's server."""
    folder = Path(os.environ.pop(FOLDER))
    with contextlib.suppress(OSError, ValueError):
        server = int((folder / "server").read_text())
        os.kill(server, signal.SIGTERM)
        os.waitpid(server, 0)  # where it is a child of this process, whose processor time its own then is
    shutil.rmtree(folder, ignore_errors=True)


def _folder() -> Path:
    """The session's folder, in which a server listens from now on."""
    folder = Path(os.environ[FOLDER])
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "socket").exists():
            _start(folder)
    return folder


def _start(folder: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, __file__, folder], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    (folder / "server").write_text(str(server.pid))
    end = time.monotonic() + PATIENCE
    while not (folder / "socket").exists():
        assert server.poll() is None and time.monotonic() < end, (folder / "log").read_text()
        time.sleep(0.05)


# What follows runs in the server.


def _write_programs(folder: Path) -> None:
    """Write the programs that ask the server."""
    (folder / "bin").mkdir()
    (folder / "client.py").write_text(CLIENT, encoding="utf-8")
    fixed = {
        "prefixes": AT_IMPORT,
        "except": PUT_RIGHT,
        "set": {name: value for name, value in at_import(os.environ).items() if name not in PUT_RIGHT},
        "python": str(folder / "bin" / "python"),
    }
    (folder / "fixed.json").write_text(json.dumps(fixed))
    real = f"'{sys.executable}'"
    ask = f"exec {real} -ISs '{folder}/client.py' {real} '{folder}'"
    for name, words in {"python": "", "lrc": "-m lrc", "accelerate": "-m accelerate.commands.accelerate_cli"}.items():
        program = folder / "bin" / name
        program.write_text(f'#!/bin/sh\n{ask} {words} "$@"\n')
        program.chmod(0o755)


def _preload() -> None:
    for name in PRELOADED:
        with contextlib.suppress(ImportError):  # an extra that is not installed
            __import__(name)
    import torch

    torch.set_num_threads(1)
    with contextlib.suppress(ImportError):
        # A thousand regular expressions, a fifth of the time of a small `lrc generate`, which transformers keeps.
        from transformers.conversion_mapping import get_checkpoint_conversion_mapping

        get_checkpoint_conversion_mapping("llama")
    for name in [name for name in sys.modules if name == "lrc" or name.startswith("lrc.")]:
        del sys.modules[name]


class _Server:
    """Takes requests, forks, and says of each process its id and its end."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.session = folder, int((folder / "session").read_text())
        self.selector = selectors.DefaultSelector()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(folder / "starting"))
        self.listener.listen(64)
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.wakeup, theirs = socket.socketpair()
        theirs.setblocking(False)
        self.theirs = theirs
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        self.selector.register(self.wakeup, selectors.EVENT_READ)
        self.processes: dict[int, socket.socket] = {}

    def serve(self) -> dict[str, Any] | None:
        """Serve until the session is over; in a forked process, what it is to run."""
        (self.folder / "starting").rename(self.folder / "socket")
        while self._session_runs():
            for key, _ in self.selector.select(2.0):
                if key.fileobj is self.listener:
                    request = self._take(self.listener.accept()[0])
                    if request is not None:
                        return request
                elif key.fileobj is self.wakeup:
                    self.wakeup.recv(4096)
                else:
                    self._left(key.fileobj)
            self._reap()
        for process in self.processes:
            os.kill(process, signal.SIGKILL)
        return None

    def _session_runs(self) -> bool:
        try:
            os.kill(self.session, 0)
        except OSError:
            return False
        return self.folder.exists()

    def _take(self, client: socket.socket) -> dict[str, Any] | None:
        handles: list[int] = []
        try:
            request = self._read(client, handles)
        except (OSError, EOFError):  # it was killed before it had asked
            for handle in handles:
                os.close(handle)
            client.close()
            return None
        process = os.fork()
        if process == 0:
            self._forget(client)
            return {**request, "handles": handles}
        for handle in handles:
            os.close(handle)
        with contextlib.suppress(OSError):  # it was killed; see `_left`
            client.sendall(f"{process}\n".encode())
        self.processes[process] = client
        self.selector.register(client, selectors.EVENT_READ)
        return None

    def _read(self, client: socket.socket, handles: list[int]) -> dict[str, Any]:
        """Read a request, and add its three streams to `handles`."""
        head, received, _, _ = socket.recv_fds(client, 8, 3)
        handles.extend(received)
        if len(handles) != 3:
            raise EOFError
        body = b""
        while len(body) < int.from_bytes(head, "big"):
            if not (part := client.recv(65536)):
                raise EOFError
            body += part
        request: dict[str, Any] = json.loads(body)
        return request

    def _forget(self, client: socket.socket) -> None:
        """In a forked process: close what is the server's."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for one in (self.listener, self.wakeup, self.theirs, client, *self.processes.values()):
            one.close()
        self.selector.close()

    def _left(self, client: Any) -> None:
        """A client was killed: so is what it stood for."""
        with contextlib.suppress(OSError):
            if client.recv(64):
                return
        for process, whose in self.processes.items():
            if whose is client:
                with contextlib.suppress(OSError):
                    os.kill(process, signal.SIGKILL)
        self.selector.unregister(client)

    def _reap(self) -> None:
        while self.processes:
            try:
                process, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if process == 0:
                return
            client = self.processes.pop(process, None)
            if client is not None:
                with contextlib.suppress(OSError):
                    client.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
                with contextlib.suppress(KeyError, ValueError):
                    self.selector.unregister(client)
                client.close()


def _become(request: dict[str, Any]) -> None:
    """In a forked process: run a command as Python would."""
    import random
    import resource
    import runpy
    import types

    with contextlib.suppress(OSError):
        os.setpgid(0, request["group"])
    for number, handle in enumerate(request["handles"]):
        os.dup2(handle, number)
        os.close(handle)
    signal.pthread_sigmask(signal.SIG_SETMASK, request.get("blocked", ()))
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    sys.stdin, sys.stdout, sys.stderr = _streams()
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    sys.executable = request["python"]
    if request.get("file_limit") is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_limit"],) * 2)
    _put_right()
    random.seed()
    tempfile.tempdir = None
    kind, *words = request["words"]
    sys.modules["__main__"] = main = types.ModuleType("__main__")
    main.__builtins__ = __builtins__  # type: ignore[attr-defined]
    folder = {"-m": str(Path.cwd()), "-c": ""}.get(kind, str(Path(kind).resolve().parent))
    sys.path[:1] = [] if os.environ.get("PYTHONSAFEPATH") else [folder]
    if kind == "-m":
        name, *words = words
        sys.argv = [name, *words]
        sys.modules.pop(name, None)
        runpy._run_module_as_main(name)  # type: ignore[attr-defined]
    elif kind == "-c":
        code, *words = words
        sys.argv = ["-c", *words]
        exec(compile(code, "<string>", "exec"), main.__dict__)
    else:
        sys.argv = [kind, *words]
        main.__file__ = kind
        exec(compile(Path(kind).read_bytes(), kind, "exec"), main.__dict__)


def _end(request: dict[str, Any]) -> NoReturn:
    """Run a command and end as Python does, only without taking every module of the server's to pieces."""
    import atexit
    import threading

    status = 1
    try:
        _become(request)
        status = 0
    except SystemExit as asked:
        status = _status(asked.code)
    except KeyboardInterrupt:
        sys.excepthook(*sys.exc_info())
        status = -signal.SIGINT
    except BaseException:
        sys.excepthook(*sys.exc_info())
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status & 0xFF)


def _status(code: Any) -> int:
    if code is None or isinstance(code, int):
        return code or 0
    print(code, file=sys.stderr)
    return 1


def _streams() -> Iterator[Any]:
    for number, mode in enumerate("rww"):
        errors = "backslashreplace" if number == 2 else None
        buffering = 1 if number == 2 or number == 1 and os.isatty(1) else -1
        yield open(number, mode, buffering, errors=errors, closefd=False)  # noqa: SIM115


def _put_right() -> None:
    """Let libraries have what they would read from the environment when they are imported."""
    import datasets.config
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    if cache := os.environ.get("HF_DATASETS_CACHE"):
        datasets.config.HF_DATASETS_CACHE = Path(cache)


if __name__ == "__main__":
    _place = Path(sys.argv[1])
    _write_programs(_place)
    gc.disable()
    _preload()
    gc.freeze()  # so that no collection in a forked process writes to, and copies, what it shares with the server
    gc.enable()
    if (_request := _Server(_place).serve()) is not None:
        _end(_request)
