"""A run's folder on disk: its plan, its lock, its journal, its artifacts.

``runs/<run id>/``:

- ``plan.json``: what was to be done, written before anything is done;
- ``lock.json``: what it was done with, written once the sandbox stands;
- ``events.jsonl``: what happened, the only truth;
- ``artifacts/sha256/ab/cdef...``: bytes by their digest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import anyio.to_thread
import attrs

from sandbox_sdk.durable import sync_folder, write_durably
from sandbox_sdk.errors import StateError
from sandbox_sdk.experiments.config import ExperimentConfig
from sandbox_sdk.experiments.derive import derive_result
from sandbox_sdk.experiments.journal import JOURNAL, Event, is_held, read_events
from sandbox_sdk.experiments.provenance import sdk_version
from sandbox_sdk.experiments.redaction import Redactor
from sandbox_sdk.experiments.result import ExperimentResult

PLAN, LOCK = "plan.json", "lock.json"

_SCHEMA = 1


# Any: plan and lock are JSON files, shown and copied as they are.
@attrs.frozen(kw_only=True)
class RunRecord:
    """A run as its folder tells it.

    Attributes:
        folder: The folder.
        id: The run's id.
        sandbox_id: The sandbox it ran in.
        created_at: Seconds since the epoch.
        live: Whether a process is running it now.
        plan: What was to be done.
        lock: What it was done with; ``None`` if it never came so far.
        events: The journal.
        result: What it gave; of a run whose process died, with the state ``lost``; ``None`` while
            it is live, or if it died before its attempt started.
    """

    folder: Path
    id: str
    sandbox_id: str
    created_at: float
    live: bool
    plan: dict[str, Any] = attrs.field(repr=False)
    lock: dict[str, Any] | None = attrs.field(repr=False)
    events: tuple[Event, ...] = attrs.field(repr=False)
    result: ExperimentResult | None


async def create_run(
    runs_dir: Path, run: str, config: ExperimentConfig, sandbox_id: str, redactor: Redactor
) -> tuple[Path, dict[str, Any]]:
    """Make a run's folder with its plan, durable on return, and return both.

    Raises:
        StateError: It cannot be written.
    """
    plan: dict[str, Any] = redactor.value(
        {
            "schema": _SCHEMA,
            "run": run,
            "sdk": await anyio.to_thread.run_sync(sdk_version),
            "sandbox": sandbox_id,
            "trial": config.trial_key,
            "config_digest": config.digest,
            "config": config.to_json(),
        }
    )
    folder = runs_dir / run
    await anyio.to_thread.run_sync(_create, folder, plan)
    return folder, plan


async def write_lock(folder: Path, lock: dict[str, Any]) -> None:
    """Write what a run is done with.

    Raises:
        StateError: It cannot be written.
    """
    await anyio.to_thread.run_sync(_write_json, folder / LOCK, lock)


def read_run(folder: Path) -> RunRecord:
    """Return a run from its folder, its result rebuilt from the journal alone. Reads the disk.

    Raises:
        StateError: The folder is no run's, or is damaged.
    """
    plan = _read_json(folder / PLAN)
    match plan:
        case {"run": str() as run, "sdk": str(), "sandbox": str() as sandbox, "config": dict()}:
            pass
        case _:
            raise StateError(f"{folder / PLAN} is no run's plan; restore it from a copy")
    journal = folder / JOURNAL
    # Looked at before reading: a run that ends in between is read complete.
    live = is_held(journal)
    events = read_events(journal) if journal.exists() else []
    return RunRecord(
        folder=folder,
        id=run,
        sandbox_id=sandbox,
        created_at=events[0].time if events else (folder / PLAN).stat().st_mtime,
        live=live,
        plan=plan,
        lock=_read_json(folder / LOCK) if (folder / LOCK).exists() else None,
        events=tuple(events),
        result=derive_result(plan, events, live=live),
    )


def find_runs(runs_dir: Path, sandbox_id: str | None = None) -> Iterator[Path]:
    """Yield the folders of all runs, or of one sandbox's, oldest first. Reads the disk."""
    if not runs_dir.is_dir():
        return
    for folder in sorted(runs_dir.iterdir()):
        plan = folder / PLAN
        if plan.is_file() and (sandbox_id is None or _read_json(plan).get("sandbox") == sandbox_id):
            yield folder


def _create(folder: Path, plan: dict[str, Any]) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(mode=0o700)
        sync_folder(folder.parent)
    except OSError as error:
        raise StateError(
            f"the run's folder {folder} cannot be made: {error.strerror or error}; free space, or "
            "correct the permissions of the state folder",
            errno=error.errno,
        ) from error
    _write_json(folder / PLAN, plan)


def _write_json(path: Path, value: object) -> None:
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    try:
        write_durably(path, text.encode())
    except OSError as error:
        raise StateError(
            f"{path} cannot be written: {error.strerror or error}; free space or repair the disk",
            errno=error.errno,
        ) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise StateError(
            f"{path} cannot be read: {error.strerror or error}", errno=error.errno
        ) from error
    except ValueError as error:
        raise StateError(f"{path} is damaged: {error}; restore it from a copy") from error
    if not isinstance(value, dict):
        raise StateError(f"{path} is damaged: it holds no JSON object; restore it from a copy")
    return cast("dict[str, Any]", value)
