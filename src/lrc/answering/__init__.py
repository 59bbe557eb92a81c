"""Asking a model: the scores of a question's options, the answer that they make, and the submission file.

May import `models`, `tokenization`, `metrics` and the rooms below them.

Public: `ScoringOptions` of `options`, `load_scorer` of `load`, `answer` of `answer`, `Scorer` of `scoring`,
`write_submission` of `submission`.
"""
