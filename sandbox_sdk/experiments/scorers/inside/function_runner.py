"""Calls a scorer's function: JSON in on standard input, JSON out on standard output."""

import __future__

import base64
import json
import os
import sys
from typing import Any, Dict  # noqa: UP035 - an older Python of a template knows no dict[...]


def main() -> None:
    """Read the call, make it, and write what the function returned."""
    answer = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # what the function prints is no verdict
    asked = json.load(sys.stdin)
    given = asked["arguments"]
    if "artifacts" in given:
        given["artifacts"] = {
            path: base64.b64decode(data) for path, data in given["artifacts"].items()
        }
    names: Dict[str, Any] = {"__name__": "scorer"}  # noqa: UP006 - as above
    flags = __future__.annotations.compiler_flag
    exec(compile(asked["source"], "<scorer>", "exec", flags, True), names)  # noqa: S102 - the task
    found = names[asked["entry"]](**given)
    if hasattr(found, "item"):  # a number of numpy
        found = found.item()
    json.dump({"value": found}, answer)
    answer.close()


main()
