"""Answering questions with a model: the scores of options, the answers that follow, and the files with them.

May import `models`, `tokenization`, `metrics` and the rooms below them.

Public: `ScoringOptions` of `options`, `load_scorer` of `load`, `answer` of `answer`, `Scorer` of `scoring`,
`submission` of `submission`.
"""
