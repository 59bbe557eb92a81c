"""LoRA for reading comprehension: workbook in, adapter and submission out."""

import logging

__version__ = "0.1.0"
DISTRIBUTION = "lora-reading-comprehension"  # what pip installs lrc by; `lrc` on PyPI is somebody else's

# On a CPU it warns, as it is imported, of optional kernels that nobody asked for.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
