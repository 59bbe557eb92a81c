"""How lrc behaves as a program: errors and findings, exit status, outputs, locks, signals, processes, memory, devices.

May import nothing of lrc but this room. Only `processes` imports torch (through accelerate) when it is imported; others
do so in functions that need it.

Public: `LrcError` of `errors` and its subclasses, `Finding` and `print_findings` of `findings`, `new_file` and
`new_folder` of `outputs`, `notify` and `track` of `progress`.
"""
