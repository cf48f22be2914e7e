"""Prompts with places for a sample's own words: ``{input}`` and ``{metadata.NAME}``.

Everything else in braces stays as it is, so that prompts may hold code and JSON. What is put in
is never looked through again: a sample's text cannot name another field.
"""

from __future__ import annotations

import json
import re

from sandbox_sdk.values import Sample

_FIELD = re.compile(r"\{(input|metadata\.([^{}\s]+))\}")


def fields_of(prompt: str) -> set[str]:
    """Return what a prompt has places for: ``input``, ``metadata.NAME``."""
    return {match[1] for match in _FIELD.finditer(prompt)}


def fill(prompt: str, sample: Sample) -> str:
    """Return a prompt with the sample's words in their places."""

    def words(match: re.Match[str]) -> str:
        value = sample.metadata[match[2]] if match[2] else sample.prompt
        return value if isinstance(value, str) else json.dumps(value)

    return _FIELD.sub(words, prompt)
