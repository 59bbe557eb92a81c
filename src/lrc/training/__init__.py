"""A training run: the trainer for token trees, with its batches, losses, checkpoints, validation and output folder.

May import `answering`, `reporting` and the rooms below them.

Public: `main` and `train` of `run`, `preflight` of `preflight`, `TreeTrainer` of `trainer`, `SequenceSource`,
`StepLoader` and `StepSampler` of `dataloader`, `Folds` of `folds`, `optimizer_bytes` of `optimizer`.
"""
