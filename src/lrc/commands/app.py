"""`lrc app`: serves a page on which a model can be tried in the browser."""

from __future__ import annotations

import os
import socket
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from lrc.answering.options import ScoringOptions, check_options, runs_of
from lrc.runtime.errors import MachineError, describe_os_error
from lrc.runtime.packages import install_extra
from lrc.runtime.progress import notify
from lrc.runtime.translation import _, localized

LOOPBACK = ("127.", "::1", "localhost")
SECONDS_TO_END = 2  # for open connections, which a browser keeps
# Turns telemetry off; gradio reads these variables when it is imported.
SILENT = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}


def app(model: str, *, options: ScoringOptions, host: str = "127.0.0.1", port: int = 7860) -> None:
    """Serve the page until the process is ended.

    Args:
        model: a base or merged model: a folder, or a name on the Hub.
        options: adapters, and how questions are answered.
        host: the address to listen on.
        port: the port to listen on; 0 picks a free one.

    Raises:
        LrcError: gradio is missing, the address is in use, or the model cannot be loaded.
    """
    if find_spec("gradio") is None:
        raise MachineError(
            _("app: gradio is not installed; {install_extra}").format(install_extra=install_extra("app"))
        )
    with _listener(host, port) as listener, TemporaryDirectory(prefix="lrc-app-") as folder:
        check_options(model, options)
        from lrc.answering.load import load_scorer

        # Uploads and downloads are kept in this folder, which is removed at the end.
        os.environ |= SILENT | {"GRADIO_TEMP_DIR": folder}
        scorer = load_scorer(model, options)
        import uvicorn

        from lrc.answering.app.page import make_site
        from lrc.answering.app.session import AppSession

        runs = runs_of(model, options)
        session = AppSession(scorer, runs[0] if len(runs) == 1 else None)
        site = make_site(session, [_name(model), *(_name(str(path)) for path in options.adapters)], Path(folder))
        if not host.startswith(LOOPBACK):
            notify(_("app: everyone who can reach this machine at {host} can use the model").format(host=host))
        text = _("open {address} in a browser; Ctrl+C ends it")
        print(localized(text.format(address=_address(host, listener))), flush=True)
        config = uvicorn.Config(site, log_level="warning", timeout_graceful_shutdown=SECONDS_TO_END)
        uvicorn.Server(config).run(sockets=[listener])


def _listener(host: str, port: int) -> socket.socket:
    """Open the socket before the model is loaded, which may take minutes."""
    try:
        family, *_rest, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        raise MachineError(
            _("app: {host} port {port}: {reason}; choose another --host or --port").format(
                host=host, port=port, reason=describe_os_error(error)
            )
        ) from error


def _address(host: str, listener: socket.socket) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listener.getsockname()[1]}"


def _name(model: str) -> str:
    """A model's name on the page: the last part of a folder's path, or the name on the Hub."""
    return Path(model).resolve().name if Path(model).is_dir() else model
