"""Base + adapter → the weights of an ordinary model, tensor by tensor, without loading the base.

May import `models` and what that may import.

Public: `StreamingMerge` of `tensor_sources`, and the writers of `writing`.
"""
