"""Tables as people write them: xlsx, xlsb, ods, CSV and JSON objects → rows of cleaned text → questions.

May import `data` and `runtime`.

Public: `read_workbook` and `Workbook` of `workbook`; every reader gives the `Table` of `table`.
"""
