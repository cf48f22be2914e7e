"""Finds the fenced block that an answer ends with: where a model was asked for code or JSON."""

from __future__ import annotations

_FENCE = "```"


def last_block(answer: str) -> str | None:
    """Return the content of the last complete fenced block, whatever its language, or ``None``."""
    found: str | None = None
    lines: list[str] | None = None
    for line in answer.splitlines(keepends=True):
        mark = line.strip(" \t\r\n")
        indent = len(line) - len(line.lstrip(" "))
        if not mark.startswith(_FENCE) or indent > 3:
            if lines is not None:
                lines.append(line)
        elif lines is None:
            lines = []
        elif mark == _FENCE:
            found, lines = "".join(lines), None
        else:
            lines.append(line)
    return found
