"""LoRA for reading comprehension: workbook in, adapter and submission out."""

__version__ = "0.1.0"
