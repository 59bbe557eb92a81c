"""A training run: the trainer for token trees, with its batches, losses, checkpoints, validation and output folder.

May import `answering`, `reporting` and the rooms below them.

Public: `main` and `train` of `run`, `preflight` of `preflight`, `TreeTrainer` and `Packing` of `trainer`, `Sampling` of
`dataloader`, `Objective` of `contrastive_loss`, `LoraPlus` of `optimizer`.
"""
