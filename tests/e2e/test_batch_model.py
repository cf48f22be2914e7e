"""A real small model writes programs in sandboxes: its batch completes, resumes and replays.

How much of it is right is shown, not asserted: the model is a toy.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from sandbox_sdk import AsyncSandboxClient, RunResult
from sandbox_sdk.experiments.models.install import install_model
from sandbox_sdk.values import COUNTED

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

FORMULAS = ("a + b", "a - b", "a * b", "a * a + b", "a + b + 1")
"""What the programs of the first five tasks compute; those of later tasks differ in a constant."""

TESTS = """
import subprocess
import sys

def test_it_writes_one_number():
    program = [sys.executable, "solution.py"]
    done = subprocess.run(program, input="3\\n4\\n", capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip().lstrip("-").isdigit()
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The small model, fetched once; ``SANDBOX_TEST_MODELS`` keeps it for longer."""
    kept = os.environ.get("SANDBOX_TEST_MODELS")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("models")

    async def fetch() -> Path:
        return await install_model("smollm2", folder)

    return f"local/{anyio.run(fetch)}"


@pytest.mark.timeout(600)
async def test_five_tasks_of_a_real_model(tmp_path: Path, model: str) -> None:
    await _complete_resume_and_replay(tmp_path, model, tasks=5, cancel_after=2)


@pytest.mark.soak
@pytest.mark.timeout(2 * 3600)
async def test_fifty_tasks_of_a_real_model(tmp_path: Path, model: str) -> None:
    await _complete_resume_and_replay(tmp_path, model, tasks=50, cancel_after=20)


async def _complete_resume_and_replay(
    folder: Path, model: str, *, tasks: int, cancel_after: int
) -> None:
    taped = {**_batch(model, tasks), "cassette": str(folder / "answers.jsonl")}
    async with AsyncSandboxClient(state_dir=folder / "state") as client:
        ended = 0
        async with client.start_batch({**taped, "cache": "use"}) as batch:
            async for _ in batch:
                ended += 1
                if ended == cancel_after:
                    await batch.cancel()
            begun = await batch.result()
        assert begun.status == "partial"
        result = await client.run_batch({**taped, "cache": "use"})
        sys.stdout.write(f"{result.summary()}\n{result.states}\n")
        assert (result.id, result.status) == (begun.id, "complete")
        assert cancel_after <= result.kept < tasks
        again = await client.run_batch({**taped, "cache": "replay"}, run="new")
        assert await client.list_sandboxes() == []
    _check(result, tasks)
    _check(again, tasks)
    assert again.id != result.id
    assert all(trial.result and trial.result.provenance.replayed for trial in again.trials)
    tables = [(run.folder / "outcomes.csv").read_bytes() for run in (result, again)]
    assert tables[0] == tables[1]


def _check(result: RunResult, tasks: int) -> None:
    """Every trial came to an end that counts, and both scorers to a verdict on each."""
    assert [score.scorer for score in result.scores] == ["io", "pytest"]
    for trial in result.trials:
        assert trial.state in COUNTED
        assert {name: verdict.value for name, verdict in trial.scores.items()}.keys() == {
            "io",
            "pytest",
        }
        assert all(verdict.value is not None for verdict in trial.scores.values())
        assert trial.result is not None
    assert {score.estimate.n for score in result.scores} == {tasks}
    called = [call for trial in result.trials if trial.result for call in trial.result.tool_calls]
    assert called, "not one answer of the model had a block of code that was run"


def _batch(model: str, tasks: int) -> dict[str, Any]:
    return {
        "model": model,
        "system": "You write short Python programs, each in one ```python block.",
        "tools": ["python"],
        "tool_format": "code_block",
        "parameters": {"temperature": 0, "max_tokens": 64},
        "seed": 7,
        "limits": {"turns": 2, "tool_timeout": 10},
        "dataset": [_task(number) for number in range(tasks)],
        "scorers": [{"type": "io", "timeout": 10}, {"type": "pytest", "tests": TESTS}],
    }


def _task(number: int) -> dict[str, Any]:
    more, which = divmod(number, len(FORMULAS))
    formula = f"{FORMULAS[which]} + {more}" if more else FORMULAS[which]
    cases = [
        {"stdin": f"{a}\n{b}\n", "stdout": str(eval(formula, {"a": a, "b": b}))}
        for a, b in ((2, 3), (10, 7))
    ]
    return {
        "id": f"t{number}",
        "input": "Read the integers a and b from two lines of input with input(), and print "
        f"{formula}. For example:\n```python\na = int(input())\nprint(a)\n```",
        "target": cases,
    }
