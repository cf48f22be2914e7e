"""What a Python context answered, read as what it is: the word of the code inside.

The answer is lines, written by ``agent/answers.py``: long texts, each a JSON string by itself, and
then one short object. No other JSON is parsed here, so that no answer makes much of few bytes.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import attrs

from sandbox_sdk.errors import ProtocolError
from sandbox_sdk.values import MIB, CodeError, MimeBundle

LONGEST_ANSWER = 8 * MIB
"""Most bytes that a context may answer with; more breaks the protocol."""

_LONGEST_OBJECT = MIB
_MOST_TEXTS = 8192
_MOST_BUNDLES, _MOST_TYPES, _MOST_NOTES = 257, 24, 32
_QUOTE = ord('"')
_MIME = re.compile(r"[A-Za-z0-9][\w.+-]{0,62}/[A-Za-z0-9][\w.+-]{0,62}", re.ASCII)
_HALF = re.compile("[\ud800-\udfff]")


@attrs.frozen(kw_only=True)
class Answer:
    """What a context said of one run.

    Attributes:
        results: What it showed.
        omitted: What it left out, a phrase each.
        error: The exception that ended the code.
        exit: The code it said it exits with.
    """

    results: tuple[MimeBundle, ...] = ()
    omitted: tuple[str, ...] = ()
    error: CodeError | None = None
    exit: int | None = None


class Reader:
    """Collects an answer as it comes.

    Attributes:
        complete: Whether the last line came.
        overlong: Whether it is more than any answer may be; what comes then is dropped.
    """

    def __init__(self) -> None:
        self.complete = False
        self.overlong = False
        self._data = bytearray()
        self._lines = [0]  # where each begins
        self._searched = 0
        self._answer: Answer | None = None

    def feed(self, data: bytes) -> bool:
        """Take bytes; return whether the answer is complete, or too long to become it."""
        if self.complete or self.overlong:
            return True
        self._data += data
        while (end := self._data.find(b"\n", self._searched)) >= 0:
            self._searched = end + 1
            if self._data[self._lines[-1]] != _QUOTE:
                self.complete = True
                break
            self._lines.append(self._searched)
            if len(self._lines) > _MOST_TEXTS:
                break
        self._searched = max(self._searched, len(self._data))
        self.overlong = len(self._data) > LONGEST_ANSWER or len(self._lines) > _MOST_TEXTS
        return self.complete or self.overlong

    def answer(self) -> Answer | None:
        """Return the answer, or ``None`` if none came.

        Raises:
            ProtocolError: It is too long, or not of the agreed shape.
        """
        if self._answer is None and self._data:
            if self.overlong:
                raise ProtocolError(
                    f"the context answered with more than {LONGEST_ANSWER} bytes or "
                    f"{_MOST_TEXTS} lines"
                )
            self._answer = _parse(bytes(self._data), self._lines)
        return self._answer


def _parse(data: bytes, lines: Sequence[int]) -> Answer:
    texts = [_text(data[start:end]) for start, end in itertools.pairwise(lines)]
    line = data[lines[-1] :].partition(b"\n")[0]
    if len(line) > _LONGEST_OBJECT:
        raise ProtocolError(f"the context's answer has an object of {len(line)} bytes")
    given = _load(line)
    if not isinstance(given, dict):
        raise _misshapen()
    told = cast("dict[str, Any]", given)
    is_value, code, error = told.get("value", False), told.get("exit"), told.get("error")
    if not (isinstance(is_value, bool) and (code is None or isinstance(code, int))):
        raise _misshapen()
    bundles = [_bundle(each, texts) for each in _list(told.get("results"), _MOST_BUNDLES)]
    last = len(bundles) - 1
    return Answer(
        results=tuple(
            MimeBundle(data=bundle, is_value=is_value and number == last)
            for number, bundle in enumerate(bundles)
        ),
        omitted=tuple(_found(each, ()) for each in _list(told.get("omitted", []), _MOST_NOTES)),
        error=None if error is None else _error(error, texts),
        exit=code,
    )


# Any, here and below: what JSON gave, to be checked.
def _list(given: Any, most: int) -> list[Any]:
    if not isinstance(given, list):
        raise _misshapen()
    found = cast("list[object]", given)
    if len(found) > most:
        raise _misshapen()
    return found


def _bundle(given: Any, texts: Sequence[str]) -> Mapping[str, str]:
    if not isinstance(given, dict):
        raise _misshapen()
    forms = cast("dict[str, Any]", given)
    if len(forms) > _MOST_TYPES or not all(map(_MIME.fullmatch, forms)):
        raise _misshapen()
    return {mime: _found(text, texts) for mime, text in forms.items()}


def _error(given: Any, texts: Sequence[str]) -> CodeError:
    match given:
        case {"name": name, "message": message, "traceback": traceback}:
            return CodeError(
                name=_found(name, texts),
                message=_found(message, texts),
                traceback=_found(traceback, texts),
            )
        case _:
            raise _misshapen()


def _found(given: Any, texts: Sequence[str]) -> str:
    """Return a text, which stands where it is or on a line of its own."""
    if isinstance(given, str):
        return _printable(given)
    if type(given) is int and 0 <= given < len(texts):  # a bool is no number of a line
        return texts[given]
    raise _misshapen()


def _text(line: bytes) -> str:
    text = _load(line)
    if not isinstance(text, str):
        raise _misshapen()
    return _printable(text)


def _load(line: bytes) -> Any:
    try:
        return _DECODER.decode(line.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the context's answer is not the JSON agreed on: {error}") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


_DECODER = json.JSONDecoder(parse_constant=_refuse, object_pairs_hook=_unique)


def _printable(text: str) -> str:
    """Replace halves of characters, which JSON can write and nobody can print or store."""
    if text.isascii() or _HALF.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _misshapen() -> ProtocolError:
    return ProtocolError("the context's answer has not the shape agreed on")
