"""Token trees: rows in which sequences share the computation of a common prefix, and the log-probabilities of targets.

May import `runtime`. Knows tensors and models, and nothing about questions or recipes.

Public: `TokenSequence`, `PackedRow` and `pack` of `tree`, `target_log_probs` and `sequence_scores` of `log_probs`,
`choose_attention` and `why_no_trees` of `attention`, `prune_last_layer` of `last_layer`.
"""
