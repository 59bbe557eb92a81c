"""A training run: the trainer on token trees, its batches, losses, checkpoints and validation, and its output folder.

May import `answering`, `reporting` and the rooms below them.

Public: `train` of `run`, `preflight` of `preflight`.
"""
