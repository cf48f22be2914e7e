"""Tools for models without tool calls: the first fenced block of an answer is what is run."""

from __future__ import annotations

import json
import re

from sandbox_sdk.experiments.models.base import ToolUse
from sandbox_sdk.experiments.tools.tools import ToolResult

_LANGUAGES = {"python": "python", "py": "python", "bash": "bash", "sh": "bash", "shell": "bash"}
_ARGUMENT = {"python": "code", "bash": "command"}

_OPENING = re.compile(r"^ {0,3}```[ \t]*(\w+)[ \t]*\r?$", re.MULTILINE)
_CLOSING = re.compile(r"^ {0,3}```[ \t]*\r?$", re.MULTILINE)


def instructions(names: tuple[str, ...], *, single_turn: bool) -> str:
    """Return what the model is told about running code."""
    blocks = " or ".join(f"```{name}" for name in names)
    text = (
        f"To run code, write one fenced code block that begins with {blocks}, and end your answer "
        "after it. The first such block is run in a sandbox."
    )
    if single_turn:
        return text
    return (
        f"{text} What it writes comes back in the next message. When you need to run nothing "
        "more, answer without such a block."
    )


def find_block(answer: str, names: tuple[str, ...]) -> ToolUse | None:
    """Return the first complete block in a language that may be run.

    Args:
        answer: The model's answer.
        names: The tools there are.
    """
    for opening in _OPENING.finditer(answer):
        name = _LANGUAGES.get(opening[1].lower())
        closing = _CLOSING.search(answer, opening.end())
        if name is not None and name in names and closing is not None:
            program = answer[opening.end() + 1 : closing.start()]
            return ToolUse(id="", name=name, arguments=json.dumps({_ARGUMENT[name]: program}))
    return None


def is_cut(answer: str, names: tuple[str, ...]) -> bool:
    """Return whether the answer ends inside a block that would have been run."""
    openings = [m for m in _OPENING.finditer(answer) if _LANGUAGES.get(m[1].lower()) in names]
    return bool(openings) and _CLOSING.search(answer, openings[-1].end()) is None


def feedback(use: ToolUse, result: ToolResult) -> str:
    """Return the message that tells the model what came of its block."""
    return f"The {use.name} block was run. Its output:\n{result.text}"
