"""Canonical JSON and its SHA-256: one text, and so one digest, for equal values."""

from __future__ import annotations

import hashlib
import json


def canonical_json(value: object) -> bytes:
    """Return the one JSON text of a value: sorted keys, no spaces, ASCII.

    Raises:
        ValueError: The value holds a number that JSON has no word for, such as NaN.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")


def digest(value: object) -> str:
    """Return the SHA-256 of a value's canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical_json(value)).hexdigest()
