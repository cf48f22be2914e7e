"""Runs are compared from their folders, by the command too, and what differs besides is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest
from click.testing import CliRunner, Result

from sandbox_sdk import AsyncSandboxClient
from sandbox_sdk.cli.app import app
from sandbox_sdk.errors import ConfigError
from sandbox_sdk.experiments.records.events import Event
from sandbox_sdk.experiments.records.run_record import RunRecord, read_run
from sandbox_sdk.experiments.results.compare_runs import Side, compare_runs
from sandbox_sdk.experiments.results.rates import RULE
from sandbox_sdk.experiments.scorers import Score

ECHO = {"model": "mock/echo", "prompt": "hello"}


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with two runs of one trial each, judged right and wrong, and one unjudged."""
    state = tmp_path_factory.mktemp("state")

    async def make() -> None:
        async with AsyncSandboxClient(state_dir=state) as client:
            sandbox = await client.create_sandbox("s")
            for _ in range(3):
                await sandbox.run_experiment(ECHO)

    anyio.run(make)
    first, second, _ = runs(state)
    judge(first, Score(scorer="exact", digest="d1", value=0.0, label="incorrect"))
    judge(second, Score(scorer="exact", digest="d1", value=1.0, label="correct"))
    judge(second, Score(scorer="other", digest="d2", value=None, label="unscored"))
    return state


def runs(state: Path) -> list[RunRecord]:
    """Return the runs, oldest first."""
    folders = sorted((state / "runs").glob("run_*"))
    return sorted(map(read_run, folders), key=lambda record: record.created_at)


def judge(record: RunRecord, score: Score) -> None:
    """Add a score to a run's journal, as scoring it anew does."""
    event = Event(
        seq=record.ledger.events + 1,
        time=0,
        monotonic=0,
        type="score",
        run=record.id,
        trial=record.keys[0],
        data=score.to_json(),
    )
    with (record.folder / "events.jsonl").open("ab") as journal:
        journal.write(event.to_line())
    record.ledger.take(event, 0, 0)


def invoke(state: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["--state-dir", str(state), *arguments])


def test_two_runs_are_compared_by_every_scorer_of_both(state: Path) -> None:
    first, second, _ = runs(state)
    found = compare_runs(Side(record=first), Side(record=second))
    (comparison,) = found.comparisons
    assert comparison.scorer == "exact"
    assert [(flip.before, flip.after) for flip in comparison.fixed] == [(0, 1)]
    assert comparison.test.p == 1.0
    assert comparison.first.startswith(first.id)
    assert found.warnings == ()


def test_the_command_shows_it_to_people_and_as_json(state: Path) -> None:
    first, second, _ = runs(state)
    shown = invoke(state, "compare", first.id, second.id)
    assert shown.exit_code == 0, shown.output
    assert "fixed 1: " in shown.stdout
    assert RULE in shown.stdout
    assert "(n=1) of 1 planned" in shown.stdout
    label = first.plan["conditions"][0]["label"]
    told = invoke(state, "compare", f"{first.id}:{label}", second.id, "--json")
    document: dict[str, Any] = json.loads(told.stdout)
    (comparison,) = document["comparisons"]
    assert comparison["rule"] == RULE
    assert comparison["verdict"] == "no difference is shown (p = 1)"


@pytest.mark.parametrize(
    ("names", "options", "said"),
    [
        ((0, 2), (), "there is no score of a scorer in both runs"),
        ((0, 1), ("--scorer", "other"), "no score of the scorer 'other' in both runs"),
        ((0, 0), (), "it is open which conditions to compare"),
    ],
)
def test_what_cannot_be_compared_is_told_with_what_there_is(
    state: Path, names: tuple[int, int], options: tuple[str, ...], said: str
) -> None:
    records = runs(state)
    done = invoke(state, "compare", *(records[index].id for index in names), *options)
    assert done.exit_code == 1
    assert said in done.stderr


def test_runs_and_conditions_that_are_not_there_are_told(state: Path) -> None:
    first, *_ = runs(state)
    done = invoke(state, "compare", "run_none", first.id)
    assert (done.exit_code, "there is no run 'run_none'" in done.stderr) == (1, True)
    with pytest.raises(ConfigError, match="has no condition 'x'; it has"):
        compare_runs(Side(record=first, condition="x"), Side(record=first))


def test_sides_that_are_less_alike_than_they_look_are_warned_of(
    state: Path, tmp_path: Path
) -> None:
    def changed(record: RunRecord, name: str, digest: str, target: int) -> RunRecord:
        folder = tmp_path / name
        folder.mkdir()
        rows = [{"id": "1", "target": target}, {"id": "2", "target": 0}]
        (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        config = {**record.plan["config"], "scorers": [{"name": "exact", "digest": digest}]}
        plan = {**record.plan, "config": config}
        return attrs.evolve(record, folder=folder, plan=plan, live=name == "b")

    first, second, _ = runs(state)
    sides = changed(first, "a", "d1", 1), changed(second, "b", "d2", 2)
    found = compare_runs(*(Side(record=record) for record in sides))
    assert found.warnings == (
        "the scorer exact is not the same in both runs: score one of them anew",
        "1 samples of the same id are not the same in both runs: 1",
        f"the run {second.id} goes on: its numbers are those of this moment",
    )
    assert str(found).endswith(f"warning: {found.warnings[-1]}")
