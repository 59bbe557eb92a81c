"""Token trees: sequences with a common prefix in rows that compute it once, and log-probabilities of their targets.

May import `runtime`. Knows tensors and models, and nothing of questions or recipes.

Public: `TokenSequence`, `PackedRow` and `pack` of `tree`, `target_log_probs` and `sequence_scores` of `log_probs`,
`choose_attention` and `why_no_trees` of `attention`, `prune_last_layer` of `last_layer`.
"""
