"""No text of a sandbox can steer a terminal, hide in it or reorder it."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_sdk.cli.text import clean

HOSTILE = {
    "colour": ("a\x1b[31mred\x1b[0m", "ared"),
    "cursor": ("a\x1b[2J\x1b[1;1Hb", "ab"),
    "title": ("a\x1b]0;title\x07b", "ab"),
    "clipboard": ("a\x1b]52;c;cm0gLXJm\x1b\\b", "ab"),
    "device control": ("a\x1bP1;2q#0\x1b\\b", "ab"),
    "reset": ("a\x1bcb", "ab"),
    "eight-bit": ("a\x9b31mb", "a31mb"),
    "unfinished": ("a\x1b]0;title", "a"),
    "lone escape": ("a\x1b", "a"),
    "backspace": ("rm\x08\x08ls", "rmls"),
    "overwritten line": ("bad\rgood", "bad\ngood"),
    "windows line": ("a\r\nb", "a\nb"),
    "reordered": ("a\u202etxt.exe\u202cb", "atxt.exeb"),
    "isolated": ("\u2066a\u2069", "a"),
    "invisible": ("a\U000e0041b", "ab"),
    "half character": ("a\ud800b", "ab"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_made_harmless(name: str) -> None:
    text, harmless = HOSTILE[name]
    assert clean(text) == harmless


def test_honest_text_is_left_as_it_is() -> None:
    text = "naïve\tχαῖρε 漢字 👩‍🚀 עברית\n  print('[red]')\n"
    assert clean(text) == text


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_what_is_left_has_no_control_but_tab_and_newline(text: str) -> None:
    left = clean(text)
    assert all(char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cs") for char in left)
    assert clean(left) == left
    left.encode()
