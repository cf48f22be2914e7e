"""Exports: whole or not at all, checkable with standard tools, safe to open."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import pytest
from plain_workplace import PlainWorkplace

from sandbox_sdk.errors import ExportError
from sandbox_sdk.experiments.models.registry import ModelRegistry
from sandbox_sdk.experiments.records.artifacts import artifact_path
from sandbox_sdk.experiments.records.journal import read_events
from sandbox_sdk.experiments.results.export import export_run, export_runs
from sandbox_sdk.experiments.results.export_tables import write_csv
from sandbox_sdk.experiments.run import run_experiment

pytestmark = pytest.mark.anyio

FILES = {
    *("README.txt", "MANIFEST.json", "SHA256SUMS", "plan.json", "lock.json", "events.jsonl"),
    *("trials.csv", "trials.jsonl", "attempts.jsonl", "result.json", "artifacts"),
    "outcomes.csv",
}


class Runs:
    """Makes runs to export."""

    def __init__(self, folder: Path) -> None:
        self.runs_dir = folder / "runs"
        self.workplace = PlainWorkplace(folder / "work")
        self.models = ModelRegistry(environ={})

    async def make(self, **config: Any) -> Path:
        """Run and return the run's folder."""
        wanted = {
            "model": "mock/script",
            "prompt": "p",
            "tools": ["bash"],
            "parameters": {
                "extra_body": {
                    "script": [
                        {"tool_calls": [{"name": "bash", "arguments": {"command": "seq 9999"}}]},
                        '=HYPERLINK("http://evil")',
                    ]
                }
            },
            "files": {"a b\n.txt": "x"},
            "artifacts": ["*"],
            **config,
        }
        result = await run_experiment(
            wanted, self.workplace, runs_dir=self.runs_dir, models=self.models
        )
        return self.runs_dir / result.id


@pytest.fixture
async def runs(tmp_path: Path) -> AsyncGenerator[Runs]:
    runs = Runs(tmp_path)
    yield runs
    await runs.models.aclose()


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


async def test_sha256sum_accepts_every_file_of_an_export(runs: Runs, tmp_path: Path) -> None:
    (place,) = await export_runs([await runs.make(name="my run")], tmp_path / "results")
    assert {path.name for path in place.iterdir()} == FILES
    checked = await anyio.run_process(
        ["sha256sum", "-c", "--strict", "SHA256SUMS"],
        cwd=place,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout
    named = {line.rpartition(": ")[0] for line in checked.stdout.decode().splitlines()}
    assert named == set(contents(place)) - {"SHA256SUMS"}
    manifest = json.loads((place / "MANIFEST.json").read_bytes())
    assert set(manifest["files"]) == named - {"MANIFEST.json"}
    assert manifest["run"]["mock"] is True
    assert "a mock" in (place / "README.txt").read_text()


async def test_an_export_tells_which_walls_were_waived(runs: Runs, tmp_path: Path) -> None:
    runs.workplace.waived = ("landlock", "disk")
    place = export_run(await runs.make(), tmp_path / "results")
    lock = json.loads((place / "lock.json").read_bytes())
    result = json.loads((place / "result.json").read_bytes())
    assert lock["sandbox"]["isolation"]["waived"] == ["landlock", "disk"]
    assert result["provenance"]["isolation"]["waived"] == ["landlock", "disk"]


async def test_the_tables_tell_what_the_result_tells(runs: Runs, tmp_path: Path) -> None:
    place = export_run(await runs.make(), tmp_path / "results")
    result = json.loads((place / "result.json").read_bytes())
    trial = json.loads((place / "trials.jsonl").read_bytes())
    attempt = json.loads((place / "attempts.jsonl").read_bytes())
    with (place / "trials.csv").open(newline="") as table:
        (row,) = csv.DictReader(table)
    assert trial["output"] == result["output"] == attempt["output"]
    assert row["output"] == "'" + result["output"]
    assert row["status"] == "success"
    assert int(row["input_tokens"]) == result["usage"]["input_tokens"]
    assert row["cost"] == ""
    assert len(read_events(place / "events.jsonl")) > 5
    for artifact in result["artifacts"]:
        assert artifact_path(place, artifact["sha256"]).stat().st_size == artifact["size_bytes"]


async def test_the_same_run_exported_twice_is_one_folder_left_as_it_is(
    runs: Runs, tmp_path: Path
) -> None:
    folder, target = await runs.make(), tmp_path / "results"
    place = export_run(folder, target)
    before = contents(place), place.stat().st_ino
    assert export_run(folder, target) == place
    assert (contents(place), place.stat().st_ino) == before
    assert list(target.iterdir()) == [place]


@pytest.mark.parametrize("change", ["file", "extra", "missing", "link", "not_a_folder"])
async def test_something_else_of_the_same_name_is_never_touched(
    runs: Runs, tmp_path: Path, change: str
) -> None:
    folder, target = await runs.make(), tmp_path / "results"
    place = export_run(folder, target)
    if change == "file":
        (place / "README.txt").write_text("mine")
    elif change == "extra":
        (place / "mine.txt").write_text("mine")
    elif change == "missing":
        (place / "README.txt").unlink()
    elif change == "link":
        (place / "README.txt").rename(tmp_path / "README.txt")
        (place / "README.txt").symlink_to(tmp_path / "README.txt")
    else:
        place.rename(tmp_path / "moved")
        place.write_text("mine")
    before = contents(target)
    with pytest.raises(ExportError, match="not touched"):
        export_run(folder, target)
    assert contents(target) == before
    assert list(target.iterdir()) == [place]


@pytest.mark.parametrize("moment", [1, 3, 8, 11])
async def test_a_full_disk_leaves_no_half_folder(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    folder, target = await runs.make(), tmp_path / "results"
    real, calls = os.fsync, 0

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == moment:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ExportError, match="No space left") as caught:
        export_run(folder, target)
    assert isinstance(caught.value, OSError)
    assert list(target.iterdir()) == []


async def test_a_target_that_is_a_file_is_an_export_error(runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "results").write_text("mine")
    with pytest.raises(ExportError):
        export_run(await runs.make(), tmp_path / "results")


async def test_names_are_made_safe_for_every_file_system(runs: Runs, tmp_path: Path) -> None:
    place = export_run(await runs.make(name="../../--bind /etc *?"), tmp_path / "results")
    assert place.parent == tmp_path / "results"
    assert place.name.startswith("bind-etc_20")


async def test_a_damaged_or_missing_artifact_is_told(runs: Runs, tmp_path: Path) -> None:
    folder = await runs.make()
    (artifact, *_) = (folder / "artifacts" / "sha256").rglob("*/*")
    artifact.write_bytes(b"changed")
    with pytest.raises(ExportError, match="damaged"):
        export_run(folder, tmp_path / "results")
    artifact.unlink()
    with pytest.raises(ExportError, match="missing"):
        export_run(folder, tmp_path / "results")
    assert list((tmp_path / "results").iterdir()) == []


async def test_an_artifact_that_became_a_link_is_not_followed(runs: Runs, tmp_path: Path) -> None:
    folder = await runs.make()
    (artifact, *_) = (folder / "artifacts" / "sha256").rglob("*/*")
    artifact.unlink()
    artifact.symlink_to("/etc/passwd")
    with pytest.raises(ExportError):
        export_run(folder, tmp_path / "results")


def filled(path: Path) -> bool:
    return path.stat().st_size > 0


async def test_a_running_run_is_not_exported(runs: Runs, tmp_path: Path) -> None:
    journals = "*/events.jsonl"
    slow = {"extra_body": {"script": [{"content": "x", "delay": 60}]}}
    async with anyio.create_task_group() as group:

        async def run() -> None:
            await runs.make(parameters=slow)

        group.start_soon(run)
        with anyio.fail_after(5):
            while not (found := list(filter(filled, runs.runs_dir.glob(journals)))):
                await anyio.lowlevel.checkpoint()
        with pytest.raises(ExportError, match="still running"):
            export_run(found[0].parent, tmp_path / "results")
        group.cancel_scope.cancel()
    place = export_run(found[0].parent, tmp_path / "results")
    assert json.loads((place / "result.json").read_bytes())["status"] == "cancelled"


async def test_a_lost_run_is_exported_as_lost(runs: Runs, tmp_path: Path) -> None:
    folder = await runs.make()
    lines = (folder / "events.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "events.jsonl").write_bytes(b"".join(lines[:6]) + lines[6][:9])
    place = export_run(folder, tmp_path / "results")
    result = json.loads((place / "result.json").read_bytes())
    assert (result["state"], result["status"]) == ("lost", "error")
    assert len(read_events(place / "events.jsonl")) == 6


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_a_cell_is_never_a_formula(start: str) -> None:
    file = io.BytesIO()
    write_csv([{"a": f"{start}1+1", "b": -5, "c": "two\nlines\0,", "d": "\ud800"}], file)
    (row,) = csv.DictReader(io.StringIO(file.getvalue().decode(), newline=""))
    assert row["a"] == f"'{start}1+1"
    assert row["b"] == "-5"
    assert row["c"] == "two\nlines\ufffd,"
