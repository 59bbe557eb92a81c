"""The commands of `lrc`, one module each: what `lrc convert`, `lrc train` and so on do once flags are parsed.

May import every room, but one command never imports another; `options` holds what several of them share.

Public: in each module the function of the command's name, which `lrc.cli` calls.
"""
