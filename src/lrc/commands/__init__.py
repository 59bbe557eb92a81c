"""The commands of `lrc`, a module each: what `lrc convert`, `lrc train`, … do once their flags are parsed.

May import every room, but one command never imports another; `options` holds what several of them share.

Public: in each module the function of the command's name, which `lrc.cli` calls.
"""
