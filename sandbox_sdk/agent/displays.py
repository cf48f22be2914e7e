"""What code shows: each value as a bundle of MIME types, named as in notebooks, within bounds.

It runs in the guest's process, among the guest's own objects: whatever their methods do harms only
their own result. What fails or is too large is left out, and said.
"""

from __future__ import annotations

import binascii
import io
import re
import sys
from typing import Any

from sandbox_sdk.agent import answers

LONGEST_TEXT = 256 * 1024
"""Longest text of a value; the middle of a longer one is cut out, and said."""
MOST_BYTES = 4 * 1024 * 1024
"""Bytes of everything that one run of code shows, as they are sent."""

_MOST_BUNDLES, _MOST_TYPES, _MOST_NOTES = 256, 16, 16
_MIME = re.compile(r"[A-Za-z0-9][\w.+-]{0,62}/[A-Za-z0-9][\w.+-]{0,62}", re.ASCII)
_METHODS = (
    ("text/html", "_repr_html_"),
    ("text/markdown", "_repr_markdown_"),
    ("text/latex", "_repr_latex_"),
    ("image/svg+xml", "_repr_svg_"),
    ("image/png", "_repr_png_"),
    ("image/jpeg", "_repr_jpeg_"),
    ("application/json", "_repr_json_"),
)
# Nothing but a repr: asked for no method at all.
_PLAIN = frozenset({int, float, complex, bool, str, bytes, list, tuple, dict, set, frozenset, type})


class Displays:
    """What one context shows; emptied by each run's end."""

    def __init__(self) -> None:
        self._begin()

    def display(self, *values: object, raw: bool = False, **unused: object) -> None:
        """Show values now, in every form they have, as ``display`` does in notebooks.

        Args:
            values: What to show.
            raw: Whether each value is a bundle already: MIME type -> content.
            unused: What else notebooks take; it changes nothing here.
        """
        for value in values:
            if len(self._bundles) == _MOST_BUNDLES:
                self._note(f"a value displayed after the first {_MOST_BUNDLES}")
                continue
            found: dict[str, str] = {}
            if raw:
                self._add_all(found, value, "a raw bundle")
            else:
                self._add_forms(found, value)
                if "text/plain" not in found:
                    self._add(found, "text/plain", repr(value), type(value).__name__)
            if found:
                self._bundles.append(found)

    def describe(self, value: object) -> dict[str, str]:
        """Return the bundle of a run's value; its text is never left out."""
        if type(value) in _PLAIN:
            return {"text/plain": cut(repr(value))}
        found: dict[str, str] = {}
        self._add_forms(found, value)
        if "text/plain" not in found:
            found["text/plain"] = cut(repr(value))
        return found

    def take(self) -> tuple[list[dict[str, str]], list[str]]:
        """End a run: return what it displayed, open figures last, and what was left out."""
        if "matplotlib.pyplot" in sys.modules:
            self._take_figures(sys.modules["matplotlib.pyplot"])
        if not (self._bundles or self._notes or self._drawn):
            return [], []
        bundles, notes, more = self._bundles, self._notes, self._more
        self._begin()
        if more:
            notes.append(f"and {more} more")
        return bundles, notes

    def _begin(self) -> None:
        self._bundles: list[dict[str, str]] = []
        self._notes: list[str] = []
        self._more = 0
        self._room = MOST_BYTES
        self._drawn: list[object] = []

    def _add_forms(self, found: dict[str, str], value: Any) -> None:
        """Add every form that a value's class offers, and a figure's picture."""
        of = type(value).__name__
        try:
            if _has(value, "_repr_mimebundle_"):
                given = value._repr_mimebundle_(include=None, exclude=None)
                self._add_all(found, _content(given), of)
        except Exception as error:  # noqa: BLE001 - guest code
            self._failed("_repr_mimebundle_", of, error)
        for mime, method in _METHODS:
            if mime in found or not _has(value, method):
                continue
            try:
                self._add(found, mime, _content(getattr(value, method)()), of)
            except Exception as error:  # noqa: BLE001 - guest code
                self._failed(method, of, error)
        if "image/png" not in found and _is_figure(value):
            self._draw(found, value)

    def _add_all(self, found: dict[str, str], contents: Any, of: str) -> None:
        if contents is None:
            return
        for mime, content in list(contents.items())[:_MOST_TYPES]:
            if isinstance(mime, str) and _MIME.fullmatch(mime):
                self._add(found, mime, content, of)
            else:
                self._note(f"a form of {of}: its name is no MIME type")

    def _add(self, found: dict[str, str], mime: str, content: object, of: str) -> None:
        """Add one form, if it is one and there is room."""
        if content is None:  # how a method says that it has nothing
            return
        if mime == "application/json" or mime.endswith("+json"):
            try:
                text = answers.json_text(content)
            except (TypeError, ValueError, RecursionError) as error:
                self._note(f"{mime} of {of}: no JSON ({type(error).__name__})")
                return
        elif isinstance(content, (bytes, bytearray)):
            text = binascii.b2a_base64(content, newline=False).decode()
        elif isinstance(content, str):
            text = cut(content) if mime == "text/plain" else "".join((content,))
        else:
            self._note(f"{mime} of {of}: neither text nor bytes")
            return
        size = len(answers.encode(text))
        if size > self._room:
            self._note(f"{mime} of {of}: {size} bytes, more than the {self._room} left for a run")
            return
        self._room -= size
        found[mime] = text

    def _take_figures(self, pyplot: Any) -> None:
        """Show and close the figures that are open: what notebooks do as a cell ends."""
        try:
            for figure in [pyplot.figure(number) for number in pyplot.get_fignums()]:
                if not any(figure is drawn for drawn in self._drawn):
                    self.display(figure)
            pyplot.close("all")
        except BaseException as error:  # noqa: BLE001 - guest code, and the run is over
            self._failed("pyplot", "matplotlib", error)

    def _draw(self, found: dict[str, str], figure: Any) -> None:
        picture = io.BytesIO()
        self._drawn.append(figure)
        try:
            figure.savefig(picture, format="png", bbox_inches="tight")
        except Exception as error:  # noqa: BLE001 - guest code
            self._failed("savefig", type(figure).__name__, error)
            return
        self._add(found, "image/png", picture.getvalue(), type(figure).__name__)

    def _failed(self, method: str, of: str, error: BaseException) -> None:
        self._note(f"{method} of {of} raised {type(error).__name__}")

    def _note(self, text: str) -> None:
        if len(self._notes) < _MOST_NOTES:
            self._notes.append(cut(text, 300))
        else:
            self._more += 1


def cut(text: str, longest: int = LONGEST_TEXT) -> str:
    """Return a text without its middle if it is longer than it may be."""
    if type(text) is not str:
        text = "".join((text,))  # a guest's own kind of text, without its methods
    lost = len(text) - longest
    if lost <= 0:
        return text
    half = longest // 2
    return f"{text[:half]}\n... {lost} characters left out ...\n{text[-half:]}"


def _has(value: object, method: str) -> bool:
    """Whether a value's class has the method; objects that answer to any name are not asked."""
    return getattr(type(value), method, None) is not None


def _content(given: Any) -> Any:
    """Return a form without the metadata that may come with it."""
    return given[0] if _is_pair(given) else given


def _is_pair(given: object) -> bool:
    return isinstance(given, tuple) and len(given) == 2  # pyright: ignore[reportUnknownArgumentType]


def _is_figure(value: object) -> bool:
    """Whether it is a figure of the guest's matplotlib, which nobody else imports."""
    module = sys.modules.get("matplotlib.figure")
    return isinstance(value, getattr(module, "Figure", ()))
