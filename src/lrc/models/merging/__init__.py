"""Merges an adapter into its base, tensor by tensor, without loading the base.

May import `models` and what that may import.

Public: `StreamingMerge` of `tensor_sources`, `write_streamed` and `write_whole` of `writing`, `compare_logits` of
`logit_check`.
"""
