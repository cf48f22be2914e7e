"""Text of unknown origin, made harmless for a terminal."""

from __future__ import annotations

import re

_SEQUENCE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\x1b[P\]X^_].*?(?:\x1b\\|\x07|$)"  # DCS, OSC, SOS, PM, APC: titles, links, clipboard
    r"|\x1b[ -/]*[0-~]",
    re.DOTALL,
)
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls, but not tab and newline
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # text that changes the order of text
    "\u2028\u2029"  # line ends that not all programs see
    "\U000e0000-\U000e007f"  # tags: text that nobody sees
    "\ud800-\udfff]"  # halves of characters, which no output can encode
)


def clean(text: str) -> str:
    """Return text without terminal sequences, controls and marks that hide or reorder it.

    A carriage return, with which a line can overwrite another, becomes a new line.
    """
    text = _SEQUENCE.sub("", text)
    return _UNSEEN.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
