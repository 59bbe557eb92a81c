"""Presents and publishes a run: the summary, charts, HTML pages, cards, and the upload to the Hub.

May import `models`, `tokenization`, `metrics` and the rooms below them.

Public: `print_summary` of `summary`, `render_report` of `page`, `write_card` of `model_card`, `publish_folder` of
`hub`.
"""
