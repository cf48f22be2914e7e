"""What a tool did, as the text that a model sees: bounded, its head and tail kept."""

from __future__ import annotations

import attrs

from sandbox_sdk.values import CodeResult, CommandResult, Ended, EndKind

_ROOM_FOR_MARK = 160


@attrs.frozen(kw_only=True)
class Shown:
    """A text cut to what a model may see.

    Attributes:
        text: What it sees.
        raw_bytes: Bytes of the whole text.
        kept_bytes: Bytes of it that are left.
    """

    text: str
    raw_bytes: int
    kept_bytes: int

    @property
    def cut(self) -> bool:
        """Whether anything was left out."""
        return self.kept_bytes < self.raw_bytes


def shorten(text: str, limit: int) -> Shown:
    """Return the head and tail of a text with a mark between that counts what is left out.

    Args:
        text: The whole text.
        limit: Bytes that the result has at most, the mark included; at least 256.
    """
    data = text.encode("utf-8", "replace")
    if len(data) <= limit:
        return Shown(text=text, raw_bytes=len(data), kept_bytes=len(data))
    room = limit - _ROOM_FOR_MARK
    head, tail = data[: room - room // 2], data[len(data) - room // 2 :]
    # A character that the cut would halve is left out too.
    first = head.decode("utf-8", "ignore")
    last = tail.decode("utf-8", "ignore")
    kept = len(first.encode()) + len(last.encode())
    left_out = len(data) - kept
    mark = f"\n[... {left_out:,} of {len(data):,} bytes left out here ...]\n"
    return Shown(text=f"{first}{mark}{last}", raw_bytes=len(data), kept_bytes=kept)


def command_text(result: CommandResult) -> str:
    """Return what a command wrote."""
    return _joined(result.stdout, result.stderr)


def code_text(result: CodeResult) -> str:
    """Return what code wrote, the text of what it showed, and how it failed."""
    trouble = ""
    if result.error is not None:
        trouble = result.error.traceback or f"{result.error.name}: {result.error.message}"
    if trouble.strip() in result.stderr:
        trouble = ""
    shown = [bundle.text or "" for bundle in result.results]
    return _joined(result.stdout, result.stderr, *shown, trouble)


def verdict(ended: Ended) -> str:
    """Return one line on how it ended, empty if it ended well and whole."""
    if ended.kind is EndKind.OK and not ended.truncated:
        return ""
    line = f"[ended: {ended}"
    if ended.truncated:
        line += f"; the sandbox kept {ended.bytes_kept:,} of {ended.bytes_seen:,} bytes"
    return line + "]"


def _joined(*parts: str) -> str:
    """Return the parts that hold anything, each on lines of its own."""
    text = ""
    for part in parts:
        if part:
            text += part if not text or text.endswith("\n") else f"\n{part}"
    return text
