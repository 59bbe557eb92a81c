"""Tables as people write them: xlsx, xlsb, ods, CSV and JSON objects → rows of cleaned text → questions.

May import `data` and `runtime`.

Public: `read_workbook` and `Workbook` of `workbook`. The reader of each format returns the `Table` of `table`.
"""
