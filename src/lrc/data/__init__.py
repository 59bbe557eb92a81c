"""Questions and the files that hold them: spreadsheets, CSV and JSON → `Question` ⇄ Alpaca record; splits; conversion.

May import `runtime`. Knows no torch and no tokenizer.

Public: `Question` of `questions`, `Record` of `alpaca`, `DataFile`, `read_questions` and `read_records` of `sources`,
`plan_parts` of `conversion`, `group_passages` of `near_duplicates`.
"""
