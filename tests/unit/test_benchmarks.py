"""The benchmarks run, tell what they promise, and can say that a promise is not kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bench import noise, processes
from bench.measure import Case, Failed, Refused, Run, distribution
from bench.table import Promise, markdown, of_told, plain

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SCRIPTS = sorted(path.stem for path in BENCHMARKS.glob("*.py") if path.stem != "__main__")
KEYS = {"benchmark", "machine", "command", "count", "promises", "distributions", "absent", "raw"}


@pytest.fixture(scope="module")
def shared_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One state folder for all scripts, so that the template is built once."""
    return tmp_path_factory.mktemp("state")


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_runs_and_writes_what_it_found(
    name: str, shared_state: Path, tmp_path: Path
) -> None:
    told = tmp_path / "told.json"
    count = "1" if name == "kill" else "2"
    script = [sys.executable, str(BENCHMARKS / f"{name}.py")]
    options = ["--count", count, "--json", str(told), "--state-dir", str(shared_state)]
    ran = subprocess.run([*script, *options], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert not ran.stderr
    found: dict[str, Any] = json.loads(told.read_text())
    assert found.keys() >= KEYS
    assert found["benchmark"] == name
    assert 0 <= found["machine"]["foreign_cpu_share"] <= 1
    assert [row for row in found["raw"] if row["error"]] == []
    promises = [of_told(row) for row in found["promises"]]
    for promise in promises:
        refused = any(what in promise.what for what in found["absent"])
        assert (promise.ours is None) == refused, promise
        assert promise.what in ran.stdout


def test_all_are_run_one_after_the_other_into_one_table(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS), "import_time", "--quick"]
    ran = subprocess.run([*command, "--results", str(tmp_path)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert json.loads((tmp_path / "import_time.json").read_text())["count"] == 2
    assert ran.stdout.count("import sandbox_sdk, over python -c pass") == 2


def test_an_unknown_benchmark_is_refused_with_those_there_are() -> None:
    ran = subprocess.run([sys.executable, BENCHMARKS, "warm"], capture_output=True, text=True)
    assert ran.returncode == 2
    assert "there is no warm" in ran.stderr
    assert "cold" in ran.stderr


def test_percentiles_are_figures_that_were_measured() -> None:
    numbers = distribution([*(float(each) for each in range(1, 101)), None])
    assert {name: numbers[name] for name in ("p10", "p50", "p90", "p99", "min", "max")} == {
        "p10": 10, "p50": 50, "p90": 90, "p99": 99, "min": 1, "max": 100,
    }  # fmt: skip
    assert (numbers["count"], numbers["failed"]) == (101, 1)
    assert "p50" not in distribution([None])
    assert distribution([3.0])["p10"] == 3


@pytest.mark.parametrize(
    ("promise", "met", "ratio"),
    [
        (Promise(what="x", unit="ms", ours=2e-3, goal=3e-3, reference=60e-3), "yes", 30),
        (Promise(what="x", unit="ms", ours=4e-3, goal=3e-3, reference=60e-3), "no", 15),
        (Promise(what="x", unit="ms", ours=2e-3, times=20, reference=60e-3), "yes", 30),
        (Promise(what="x", unit="ms", ours=2e-3, goal=3e-3, times=40, reference=60e-3), "no", 30),
        (Promise(what="x", unit="ms", ours=2e-3, goal=3e-3, times=40), "unknown", None),
        (Promise(what="x", unit="ms", ours=2e-3, goal=3e-3, failed=1), "no", None),
        (Promise(what="x", unit="ms", ours=None, goal=3e-3, note="refused"), "unknown", None),
        (Promise(what="x", unit="/s", ours=600, goal=500, reference=30, more=True), "yes", 20),
        (Promise(what="x", unit="/s", ours=400, goal=500, reference=30, more=True), "no", 40 / 3),
        (Promise(what="x", unit="ms", ours=2e-3), "", None),
    ],
)
def test_a_promise_is_judged(promise: Promise, met: str, ratio: float | None) -> None:
    assert promise.met == met
    assert promise.ratio == (None if ratio is None else pytest.approx(ratio))
    assert of_told(json.loads(json.dumps(promise.told()))) == promise


def test_a_table_tells_goal_reference_and_failures() -> None:
    row = Promise(
        what="cold", unit="ms", ours=2e-3, goal=3e-3, reference=60e-3, against="bwrap", times=20,
        failed=2,
    )  # fmt: skip
    cells = ("cold (2 failed)", "2 ms", "60 ms bwrap", "30x", "<= 3 ms, >= 20x", "no")
    assert markdown([row]).splitlines()[-1] == f"| {' | '.join(cells)} |"
    assert all(cell in plain([row]) for cell in cells)


@pytest.mark.anyio
async def test_rounds_alternate_and_leave_out_what_is_refused(tmp_path: Path) -> None:
    run = Run(4, tmp_path)

    async def good() -> float:
        return 1.0

    async def bad() -> float:
        raise Failed("wrong answer")

    async def refused() -> float:
        raise Refused("no control group")

    cases = [
        Case(label="good", measure=good),
        Case(label="bad", measure=bad),
        Case(label="refused", measure=refused),
        Case(label="slow", measure=good, every=2),
        Case(label="short", measure=good, repeat=3),
    ]
    await run.alternate(cases, rounds=4)
    assert run.absent == {"refused": "no control group"}
    found = run.distributions()
    counts = {label: numbers["count"] for label, numbers in found.items()}
    assert counts == {"good": 4, "bad": 4, "slow": 2, "short": 12}
    assert found["bad"]["success_rate"] == 0
    first = [next(row.label for row in run.raw if row.round == each) for each in range(5)]
    assert len(set(first)) > 2  # each round begins with another
    assert run.promise("bad", goal=1.0).met == "no"
    assert run.promise("refused", goal=1.0).note == "refused"


def test_work_of_others_is_told_apart_from_ours() -> None:
    program = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    watched = noise.Noise()
    subprocess.run([sys.executable, "-c", program], check=True)
    told = watched.told()
    assert told["own_cpu_seconds"] >= 0.3
    assert told["seconds"] >= 0.3
    assert told["own_cpu_share"] > 0


def test_the_end_of_watched_processes_is_seen() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        assert child.pid in processes.below(os.getpid())
        assert processes.marked("sleep", [child.pid]) == [child.pid]
        watched = processes.Watched([child.pid])
        assert not watched.gone(0.01)
        child.kill()
        assert watched.gone(5)  # not waited for: a zombie has ended
        watched.close()
    assert processes.marked("sleep", [child.pid]) == []
