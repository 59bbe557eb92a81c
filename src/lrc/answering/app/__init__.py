"""The page of `lrc app`: a model is tried in the browser, one question or one file at a time.

May import `answering` and what that may import. Gradio is imported by `page` only.

Public: `AppSession` of `session`, `make_site` of `page`.
"""
