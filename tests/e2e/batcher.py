"""Runs one batch, for a test that kills it: python batcher.py STATE_DIR TRIALS ANSWERS.

Its model answers by a script and writes down each call that it was really asked. Tools do the
same in every sandbox, so that a killed run and an undisturbed one must come to the same table.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import anyio

from sandbox_sdk import AsyncSandboxClient
from sandbox_sdk.experiments.models import mock
from sandbox_sdk.experiments.models.base import ModelOutput, ModelRequest

STEPS = (
    {"tool_calls": [{"name": "bash", "arguments": {"command": "ls | wc -l; echo one > f"}}]},
    {"tool_calls": [{"name": "python", "arguments": {"code": "print(open('f').read() * 2)"}}]},
    "done",
)


def config(trials: int) -> dict[str, Any]:
    """Return the batch."""
    return {
        "model": "mock/script",
        "prompt": "{input}",
        "dataset": [
            {"id": f"s{number}", "input": f"task {number}", "target": "done"}
            for number in range(trials)
        ],
        "tools": ["bash", "python"],
        "files": {"given": "x"},
        "parameters": {"extra_body": {"script": list(STEPS)}},
        "scorers": ["exact"],
        "sandbox": {"template": "python"},
    }


class CountedMock(mock.MockProvider):
    """The scripted model, which notes on the disk what it was asked."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def generate(self, request: ModelRequest) -> ModelOutput:
        """Answer, and note the call."""
        output = await super().generate(request)
        asked = next(m for m in request.messages if m["role"] == "user")["content"]
        os.write(self._file, f"{asked} {request.call}\n".encode())
        return output


async def main(*words: str) -> None:
    """Run the batch to its end."""
    state_dir, trials, answers = words
    async with AsyncSandboxClient(state_dir=state_dir) as client:
        batches = await client._batches()
        batches.models._providers["mock"] = CountedMock(Path(answers))
        result = await client.run_batch(config(int(trials)))
        sys.stdout.write(f"{result.id} {result.status} {result.counted} {result.kept}\n")


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
