"""What is shown and published about a run: summary, charts, the HTML page, the model card, the upload to the Hub.

May import `models`, `tokenization`, `metrics` and the rooms below them.

Public: `print_summary` of `summary`, `render_report` of `page`, `write_card` of `model_card`, `publish_folder` of
`hub`.
"""
