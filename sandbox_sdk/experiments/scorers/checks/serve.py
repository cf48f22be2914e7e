"""The process that matches patterns and schemas: one JSON line in, one out, until its input ends.

A pattern or a text may take for ever or all memory. Here that costs a process which its owner
ends, not the owner.
"""

from __future__ import annotations

import json
import re
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

from . import schema

_MEMORY_BYTES = 2 << 30
_GRACE_SECONDS = 1.0


def search(pattern: str, flags: int, text: str) -> dict[str, Any]:
    """Return where the pattern matches first: the whole match and its groups."""
    match = re.compile(pattern, flags).search(text)
    if match is None:
        return {"found": False}
    return {"found": True, "match": match[0], "groups": match.groups(), "named": match.groupdict()}


def validate(rules: Any, text: str) -> dict[str, Any]:
    """Return the faults of a text as JSON by a schema, and whether it is JSON at all."""
    try:
        value = json.loads(text, parse_constant=_refuse)
    except ValueError as error:
        return {"json": False, "faults": [f"not JSON: {error}"]}
    except RecursionError:
        return {"json": False, "faults": ["not JSON that can be read: it is nested too deep"]}
    return {"json": True, "faults": schema.faults(value, rules)}


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def main() -> None:
    """Answer until the input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    work: dict[str, Callable[..., dict[str, Any]]] = {"search": search, "validate": validate}
    for line in sys.stdin:
        asked = json.loads(line)
        # Whoever asked ends this process in time. If he is gone, the kernel does: its default
        # for SIGALRM needs no interpreter, which is busy with a pattern.
        signal.setitimer(signal.ITIMER_REAL, asked.pop("seconds") + _GRACE_SECONDS)
        try:
            answer = work[asked.pop("do")](**asked)
        except RecursionError:
            answer = {"failed": "it is nested too deep"}
        except MemoryError:
            answer = {"failed": f"it takes more than {_MEMORY_BYTES >> 20} MiB of memory"}
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
