"""The sample workbooks, written for this project and under its licence."""
