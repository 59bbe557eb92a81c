"""`torch_compile`: whether anything can be compiled on this machine."""

from __future__ import annotations

from typing import Any

import torch

from lrc.runtime.errors import MachineError, first_line
from lrc.runtime.translation import _


def check_compilation(args: Any) -> None:
    """Compile a function of one line as the model will be, before minutes are spent on loading the base.

    Without a C++ compiler, or with an unknown mode, the first step would end in a traceback.

    Args:
        args: the SFTConfig.

    Raises:
        MachineError: it cannot be compiled.
    """
    if not args.torch_compile:
        return
    try:
        square = torch.compile(torch.square, backend=args.torch_compile_backend, mode=args.torch_compile_mode)
        square(torch.ones(8, device=args.device, requires_grad=True)).sum().backward()
    except Exception as error:  # whatever a backend raises
        text = _(
            "torch_compile: nothing can be compiled here ({reason}); correct torch_compile_backend and "
            "torch_compile_mode, install what it asks for, or remove torch_compile"
        )
        raise MachineError(text.format(reason=first_line(error))) from error
