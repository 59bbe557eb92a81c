"""What people write in the 正確答案 column."""

from __future__ import annotations

import re

# Full-width digits and letters, and nothing else: ③ or ３％ is no answer that lrc should guess at.
_HALF_WIDTH = str.maketrans("０１２３４５６７８９．ＡＢＣＤＥＦＧＨａｂｃｄｅｆｇｈ", "0123456789.ABCDEFGHabcdefgh")
_ANSWER = re.compile(r"(?:[選选][項项])?\s*(?:([0-9]+)(?:\.0+)?|([A-Ha-h]))")


def understand(text: str) -> int | None:
    """The number of the right option, from 1; it may be beyond the question's options.

    Understood are `3`, `選項3`, full-width digits, `3.0`, the letters A to H, and white space around them.

    Returns:
        None where the text is anything else.
    """
    found = _ANSWER.fullmatch(text.strip().translate(_HALF_WIDTH))
    if found is None:
        return None
    digits, letter = found.groups()
    if letter:
        return ord(letter.upper()) - ord("A") + 1
    return int(digits) if len(digits) < 3 else None
