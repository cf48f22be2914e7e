"""Removal of known secrets from everything that is kept, shown or raised."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

REDACTED = "[redacted]"

_SHORTEST = 8
# Shorter "keys" are placeholders such as "none" or "EMPTY" that local servers are given; replacing
# them would garble ordinary text and protect nothing.

_SECRET_WORDS = ("authorization", "cookie", "key", "password", "secret", "token")


def looks_secret(name: str) -> bool:
    """Return whether a field or header of this name usually holds a secret."""
    return any(word in name.lower() for word in _SECRET_WORDS)


class Redactor:
    """Replaces the values of secrets it was told of. Its own text never shows them."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets: tuple[str, ...] = ()
        self._marks: tuple[bytes, ...] = ()  # the secrets as JSON writes them within a text
        for secret in secrets:
            self.add(secret)

    def __repr__(self) -> str:
        return f"Redactor({len(self._secrets)} secrets)"

    def add(self, secret: str) -> None:
        """Remember a secret; one shorter than eight characters is no secret."""
        secret = secret.strip()
        if len(secret) >= _SHORTEST and secret not in self._secrets:
            # Longest first: a secret may hold another.
            self._secrets = tuple(sorted((*self._secrets, secret), key=len, reverse=True))
            self._marks = tuple(json.dumps(each)[1:-1].encode() for each in self._secrets)

    def finds(self, line: bytes) -> bool:
        """Return whether a line of JSON in ASCII holds a secret in any of its texts."""
        return any(mark in line for mark in self._marks)

    def found(self, line: bytes) -> list[str]:
        """Return the secrets that a line of JSON in ASCII holds in any of its texts."""
        pairs = zip(self._secrets, self._marks, strict=True)
        return [secret for secret, mark in pairs if mark in line]

    def text(self, text: str) -> str:
        """Return the text with each secret replaced."""
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, REDACTED)
        return text

    def data(self, data: bytes) -> bytes:
        """Return the bytes with each secret's UTF-8 form replaced."""
        for secret in self._secrets:
            data = data.replace(secret.encode(), REDACTED.encode())
        return data

    def value(self, value: Any) -> Any:
        """Return a JSON value with each secret replaced, in keys too; tuples become lists."""
        if not self._secrets:
            return plain(value)
        return plain(value, self.text)


# Any: JSON in, JSON of the same shape out.
def plain(value: Any, text: Callable[[str], str] | None = None) -> Any:
    """Return a JSON value made of new lists and dicts, each text passed through ``text``."""
    if isinstance(value, str):
        return text(value) if text else str(value)
    if isinstance(value, Mapping):
        items = cast("Mapping[str, object]", value).items()
        return {text(key) if text else key: plain(item, text) for key, item in items}
    if isinstance(value, list | tuple):
        return [plain(item, text) for item in cast("Sequence[object]", value)]
    return value
