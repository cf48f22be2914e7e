"""Reads the verdict that a scorer's own program gave: a number, true or false, or a mapping."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

from sandbox_sdk.errors import ConfigError
from sandbox_sdk.experiments import fields
from sandbox_sdk.experiments.scorers.base import Score, Scorer, unscored, verdict
from sandbox_sdk.parse import fault


def _number(value: object, path: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, int | float):  # true is 1
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise fault(path, "must be a finite number, true or false, or nothing")


_READERS: Mapping[str, fields.Reader] = {
    "value": _number,
    "label": fields.line,
    "answer": fields.text,
    "explanation": fields.text,
    "metadata": fields.json_object,
}


def score_of(scorer: Scorer, value: object, said: str = "") -> Score:
    """Return the score that a program's answer means; what is none leaves it unscored.

    Args:
        scorer: Whose program it is.
        value: The answer, as it came: a number, ``true`` or ``false``, or a mapping with
            ``value`` and perhaps ``label``, ``answer``, ``explanation`` and ``metadata``.
        said: What else the program wrote, for a score without a value.
    """
    try:
        if isinstance(value, Mapping):
            found: dict[str, Any] = fields.read_fields(cast("object", value), "score", _READERS)
        else:
            found = {"value": _number(value, "score")}
    except ConfigError as error:
        return unscored(scorer, f"what it gave is no score: {error.message}\n{said}".strip())
    number = found.pop("value", None)
    if number is None:
        reason = found.get("explanation") or f"it gave no value\n{said}".strip()
        return unscored(scorer, reason, found.get("metadata"))
    return verdict(scorer, number, **found)
