"""Scorers of every type judge the trials of a batch, and two batches are compared by command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from click.testing import CliRunner

from sandbox_sdk import AsyncSandboxClient
from sandbox_sdk.cli.app import app
from sandbox_sdk.experiments.scorers import KINDS

pytestmark = [pytest.mark.timeout(120), pytest.mark.slow]


def has_code(output: str) -> bool:
    return "print" in output


GRADER = {"model": "mock/script", "parameters": {"extra_body": {"script": ["Fine.\nGRADE: C"]}}}
TESTS = "import solution\ndef test_it(capsys): assert solution.ANSWER == 6 * 7"

SCORERS: list[Any] = [
    {"type": "exact", "target": "nothing of the kind"},
    "includes",
    "numeric",
    {"type": "regex", "pattern": r"ANSWER = (\d+)", "group": 1},
    {"type": "json_schema", "schema": {"type": "integer"}},
    {"type": "function", "source": has_code, "name": "function"},
    {"type": "command", "command": "grep -q ANSWER output.txt"},
    "io",
    {"type": "pytest", "tests": TESTS},
    {"type": "model_graded", **GRADER},
]


def batch(name: str, *answers: int) -> dict[str, Any]:
    rows = [
        {
            "id": f"s{index}",
            "input": f"```python\nANSWER = {answer}\nprint(ANSWER)\n```\nSo it is {answer}",
            "target": "42",
        }
        for index, answer in enumerate(answers)
    ]
    return {"name": name, "model": "mock/echo", "dataset": rows, "scorers": SCORERS}


async def run_both(state: Path) -> list[str]:
    async with AsyncSandboxClient(state_dir=state) as client:
        ids = [
            (await client.run_batch(batch("before", 41, 42))).id,
            (await client.run_batch(batch("after", 42, 42))).id,
        ]
        assert await client.list_sandboxes() == []
    return ids


def test_every_type_judges_the_trials_of_a_batch(tmp_path: Path) -> None:
    types = {scorer["type"] if isinstance(scorer, dict) else scorer for scorer in SCORERS}
    assert types == KINDS.keys()
    ids = anyio.run(run_both, tmp_path)
    asked = ["--state-dir", str(tmp_path), "compare", *ids, "--json"]
    compared = CliRunner().invoke(app, asked)
    assert compared.exit_code == 0, compared.output
    found = {item["scorer"]: item for item in json.loads(compared.stdout)["comparisons"]}
    means = {
        name: (item["first_rate"]["estimate"]["mean"], item["second_rate"]["estimate"]["mean"])
        for name, item in found.items()
    }
    judged = dict.fromkeys(("includes", "numeric", "regex", "io", "pytest"), (0.5, 1.0))
    same = dict.fromkeys(("function", "command", "model_graded"), (1.0, 1.0))
    assert means == {**judged, **same, "exact": (0.0, 0.0), "json_schema": (0.0, 0.0)}
    assert [flip["sample"] for flip in found["io"]["fixed"]] == ["s0"]
