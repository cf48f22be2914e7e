"""``run``, ``runs list`` and ``runs show``, as a shell calls them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sandbox_sdk.cli.progress import lines
from sandbox_sdk.experiments.batches.progress import Pace, Progress
from sandbox_sdk.experiments.budgets.budget import BudgetSummary

BATCH = """\
name: words
dataset: rows.jsonl
scorers: [exact]
grid:
  model: [mock/echo]
  parameters.temperature: [0, 1]
"""
SLOW = """\
model: mock/script
prompt: "{input}"
dataset: rows.jsonl
parameters: {extra_body: {script: [{content: x, delay: 60}]}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [{"id": name, "input": name, "target": name} for name in "abcd"]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (tmp_path / "batch.yaml").write_text(BATCH)
    (tmp_path / "slow.yaml").write_text(SLOW)
    return tmp_path


def shell(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    state = ["--state-dir", str(folder / "state")]
    return subprocess.run(
        [sys.executable, "-m", "sandbox_sdk", *state, *words],
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
    )


def document(folder: Path, *words: str, code: int = 0) -> Any:
    done = shell(folder, "--json", *words)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


@pytest.mark.timeout(120)
def test_a_batch_is_previewed_run_listed_and_shown(folder: Path) -> None:
    file = str(folder / "batch.yaml")
    told = document(folder, "run", "--dry-run", file)
    assert (told["planned"], told["to_run"], told["run"]) == (8, 8, None)
    done = document(folder, "run", file)
    assert (done["status"], done["counted"], done["planned"]) == ("complete", 8, 8)
    assert done["rule"].startswith("Counted are")
    again = document(folder, "run", file)
    assert again["run"] == done["run"]
    part = document(folder, "run", "--limit", "3", "--sample-id", "b", "--reuse", done["run"], file)
    assert (part["planned"], part["counted"]) == (2, 2)
    listed = document(folder, "runs", "list")["runs"]
    assert [info["id"] for info in listed] == [done["run"], part["run"]]
    shown = shell(folder, "runs", "show", done["run"], "--export", str(folder / "out"))
    assert "8 of 8 trials count" in shown.stdout
    assert "a mock" in shown.stdout
    (exported,) = (folder / "out").iterdir()
    assert (exported / "outcomes.csv").exists()


@pytest.mark.timeout(60)
def test_ctrl_c_ends_a_batch_within_seconds_and_the_same_command_goes_on(folder: Path) -> None:
    words = ["--state-dir", str(folder / "state"), "run", str(folder / "slow.yaml")]
    process = subprocess.Popen(
        [sys.executable, "-m", "sandbox_sdk", *words], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert "Ctrl-C" in process.stderr.readline()
    (journal,) = _journals(folder)
    while journal.read_bytes().count(b"model.requested") < 4:
        pass
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    process.stderr.close()
    (info,) = document(folder, "runs", "list")["runs"]
    assert not info["live"]
    shown = document(folder, "runs", "show", info["id"])
    assert shown["states"] == {"cancelled": 4}
    assert len(shown["possibly_billed"]) == 4


def _journals(folder: Path) -> list[Path]:
    while not (found := list((folder / "state/runs").glob("*/events.jsonl"))):
        os.sched_yield()
    return found


def test_what_is_no_batch_is_told_with_all_its_faults(folder: Path) -> None:
    (folder / "bad.yaml").write_text("modle: x\ndataset: none.csv\n")
    done = shell(folder, "run", str(folder / "bad.yaml"))
    assert done.returncode == 1
    assert 'did you mean "model"' in done.stderr
    assert "none.csv cannot be read" in done.stderr


def test_progress_tells_of_how_many_and_what_is_left_out() -> None:
    progress = Progress(
        planned=200,
        done=50,
        kept=10,
        running=3,
        counted=45,
        states={"completed": 45, "infra_error": 5},
        replayed=2,
        tokens=1234,
        budget=BudgetSummary(lines=(), hard=False, refused={}),
    )
    told = "\n".join(lines(progress, 75.0))
    assert "50/200 done (10 kept), 3 running, ETA 1m15s" in told
    assert "45 of 50 count, 5 excluded" in told
    pace = Pace()
    assert pace.seconds_left(progress, now=0.0) is None
    later = Progress(
        **{field: getattr(progress, field) for field in _FIELDS if field != "done"}, done=100
    )
    assert pace.seconds_left(later, now=10.0) == 20.0


_FIELDS = (
    *("planned", "done", "kept", "running", "counted", "states", "replayed", "tokens", "budget"),
)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount the small disk")
@pytest.mark.timeout(60)
def test_a_full_disk_names_the_trials_exits_with_3_and_the_next_call_goes_on(folder: Path) -> None:
    rows = [{"id": f"s{number}", "input": "x" * 2000, "target": ""} for number in range(200)]
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    file = str(folder / "batch.yaml")
    document(folder, "runs", "list")
    disk = folder / "state/runs"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1400k,mode=700", "t", disk], check=True)
    try:
        done = shell(folder, "--json", "run", file)
        assert done.returncode == 3, done.stderr
        told = json.loads(done.stdout)
        assert told["status"] == "degraded"
        assert 0 < told["counted"] < told["planned"] == 400
        assert told["unrecorded"]
        assert f"not recorded: trial {told['unrecorded'][0]}" in done.stderr
        assert "No space left" in done.stderr
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        again = document(folder, "run", file)
        assert (again["run"], again["status"], again["counted"]) == (told["run"], "complete", 400)
        assert again["kept"] == told["counted"]
    finally:
        subprocess.run(["umount", disk], check=True)
