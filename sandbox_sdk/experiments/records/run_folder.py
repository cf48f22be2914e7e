"""A run's folder on disk: its plan, its lock, its journal, its artifacts.

``runs/<run id>/``:

- ``plan.json``: what was to be done, written before anything is done;
- ``trials.txt``: the keys of its trials in order;
- ``samples.jsonl``: the dataset, where there is one;
- ``lock.json``: what it was done with;
- ``lease.json``: who drives it;
- ``events.jsonl``: what happened, the only truth;
- ``redactions.json``: the salts of what was redacted in it, where anything was;
- ``artifacts/sha256/ab/cdef...``: bytes by their digest;
- ``outcomes.csv``, ``trials.csv``, ``trials.jsonl``: tables, made from the above.

In a sealed run the artifacts lie in ``artifacts/sealed`` by a keyed digest, there are no tables,
and of the others only ``lease.json`` is as in a plain one. Of ``plan.json`` and ``events.jsonl`` a
part is readable, of the rest nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sandbox_sdk.durable import sync_folder
from sandbox_sdk.errors import IntegrityError, SandboxNotFound, StateError
from sandbox_sdk.experiments.batches.datasets import to_json
from sandbox_sdk.experiments.batches.plan import Plan
from sandbox_sdk.experiments.provenance import sdk_version
from sandbox_sdk.experiments.records.digests import canonical_json
from sandbox_sdk.experiments.records.payloads import PLAIN, Payloads, seal_json, unseal_json
from sandbox_sdk.experiments.records.redaction import Redactor
from sandbox_sdk.experiments.records.run_files import (
    lines_of,
    read_file,
    read_json,
    write_file,
    write_json,
)

PLAN, LOCK, KEYS, SAMPLES = "plan.json", "lock.json", "trials.txt", "samples.jsonl"

_SCHEMA = 2
_BY_PLAN = ".plans"


# Any: plan and lock are JSON files, shown and copied as they are.
def create_run(
    runs_dir: Path,
    run: str,
    plan: Plan,
    sandbox_id: str | None,
    redactor: Redactor,
    payloads: Payloads = PLAIN,
    mark: str = "",
) -> Path:
    """Make a run's folder with its plan, durable on return. Blocks on the disk.

    Args:
        runs_dir: Where the folder is made.
        run: The run's id.
        plan: What is to be done.
        sandbox_id: The sandbox that all of it is done in, if it is one.
        redactor: Removes secrets from what is written.
        payloads: Keeps what is written.
        mark: What the plan is found by; by default its digest.

    Raises:
        StateError: It cannot be written.
    """
    folder = runs_dir / run
    try:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(mode=0o700)
        sync_folder(folder.parent)
        if sandbox_id is None:
            write_file(folder, KEYS, (f"{key}\n".encode() for key in plan.keys), payloads)
            if plan.batch.has_dataset:
                rows = map(to_json, plan.batch.dataset.samples)
                write_file(folder, SAMPLES, (canonical_json(row) + b"\n" for row in rows), payloads)
            place = runs_dir / _BY_PLAN / (mark or plan.digest)
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
            (place / run).touch()
    except OSError as error:
        raise StateError(
            f"the run's folder {folder} cannot be made: {error.strerror or error}; free space, or "
            "correct the permissions of the state folder",
            errno=error.errno,
        ) from error
    told = redactor.value(_plan_json(run, plan, sandbox_id))
    write_json(folder / PLAN, seal_json(payloads, PLAN, told, open=_head(told)))
    return folder


def _head(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a plan stays readable without the key: what ``run_info`` tells of a run."""
    same = {name: plan[name] for name in ("schema", "run", "sdk", "sandbox", "planned")}
    models = [each["config"].get("model") for each in plan["conditions"]]
    return {
        **same,
        "name": plan["config"].get("name"),
        "models": list(dict.fromkeys(model for model in models if model)),
    }


def _plan_json(run: str, plan: Plan, sandbox_id: str | None) -> dict[str, Any]:
    batch = plan.batch
    conditions = [
        {
            "label": ready.condition.label,
            "axes": ready.condition.axes,
            "config": ready.condition.config.to_json(),
            "config_digest": ready.condition.config.digest,
            "sandbox": ready.facts,
        }
        for ready in plan.ready
    ]
    whole = conditions[0]["config"] if sandbox_id else batch.to_json()
    return {
        "schema": _SCHEMA,
        "run": run,
        "sdk": sdk_version(),
        "sandbox": sandbox_id,
        "digest": plan.digest,
        "trial": plan.keys[0] if sandbox_id else None,
        "config": whole,
        "config_digest": conditions[0]["config_digest"] if sandbox_id else plan.digest,
        "conditions": conditions,
        "dataset": {
            "source": batch.dataset.source,
            "digest": batch.dataset.digest,
            "samples": len(batch.dataset.samples),
        }
        if batch.has_dataset
        else None,
        "repeats": batch.repeats,
        "planned": len(plan),
    }


def read_head(folder: Path) -> dict[str, Any]:
    """Return what of a run's plan everybody can read. Reads the disk.

    Raises:
        StateError: The folder is no run's, or is damaged.
    """
    plan = read_json(folder / PLAN)
    match plan:
        case {"run": str(), "planned": int(), "key": str(), "models": [*_], "name": _}:
            return plan
        case {"run": str(), "sdk": str(), "config": dict(), "planned": int(), "conditions": [*_]}:
            return {**plan, **_head(plan)}
        case _:
            raise StateError(f"{folder / PLAN} is no run's plan; restore it from a copy")


def key_id(folder: Path) -> str | None:
    """Return the id of the key that a run is sealed with; ``None`` if it is not. Reads the disk.

    Raises:
        StateError: The folder is no run's, or is damaged.
    """
    found: str | None = read_head(folder).get("key")
    return found


def read_plan(folder: Path, payloads: Payloads = PLAIN) -> dict[str, Any]:
    """Return a run's plan. Reads the disk.

    Raises:
        IntegrityError: It is sealed, and was changed.
        StateError: The folder is no run's, or is damaged.
    """
    path = folder / PLAN
    plan = unseal_json(payloads, PLAN, read_json(path), path=path)
    match plan:
        case {"run": str(), "sdk": str(), "config": dict(), "planned": int(), "conditions": [*_]}:
            return plan
        case _:
            raise StateError(f"{path} is no run's plan; restore it from a copy")


def read_keys(folder: Path, plan: Mapping[str, Any], payloads: Payloads = PLAIN) -> list[str]:
    """Return the keys of a run's trials in order. Reads the disk.

    Raises:
        IntegrityError: They are sealed, and were changed.
        StateError: They cannot be read.
    """
    if plan["trial"]:
        return [plan["trial"]]
    return b"".join(read_file(folder, KEYS, payloads)).decode().split()


def read_samples(folder: Path, payloads: Payloads = PLAIN) -> Iterator[dict[str, Any]]:
    """Yield the rows of a run's dataset; none if it has no dataset. Reads the disk.

    Raises:
        IntegrityError: They are sealed, and were changed.
        StateError: They cannot be read, or are damaged.
    """
    path = folder / SAMPLES
    if not path.exists():
        return
    try:
        for line in lines_of(read_file(folder, SAMPLES, payloads)):
            yield json.loads(line)
    except IntegrityError:
        raise
    except ValueError as error:
        raise StateError(f"{path} is damaged: {error}; restore it from a copy") from error


def find_run(runs_dir: Path, run: str) -> Path:
    """Return the folder of a run.

    Raises:
        SandboxNotFound: There is none of that id.
    """
    folder = runs_dir / run
    # An id that leads elsewhere is no run's either.
    if "/" in run or run.startswith(".") or not (folder / PLAN).is_file():
        raise SandboxNotFound(
            f"there is no run {run!r} in this state folder; list_runs() names those there are"
        )
    return folder


def find_runs(runs_dir: Path, sandbox_id: str | None = None) -> Iterator[Path]:
    """Yield the folders of all runs, or of one sandbox's, oldest first. Reads the disk."""
    if not runs_dir.is_dir():
        return
    for folder in sorted(runs_dir.iterdir()):
        plan = folder / PLAN
        if plan.is_file() and (sandbox_id is None or read_json(plan).get("sandbox") == sandbox_id):
            yield folder


def runs_of_plan(runs_dir: Path, marks: Iterable[str]) -> list[Path]:
    """Return the folders of the runs of a plan, oldest first. Reads the disk.

    Args:
        runs_dir: Where runs are kept.
        marks: What the plan is found by.
    """
    places = [runs_dir / _BY_PLAN / mark for mark in marks]
    runs = sorted(path.name for place in places if place.is_dir() for path in place.iterdir())
    return [runs_dir / run for run in runs if (runs_dir / run / PLAN).is_file()]


def lock_plan(runs_dir: Path, mark: str) -> int:
    """Wait until nobody else looks for or begins a run of a plan; closing what it returns ends it.

    Args:
        runs_dir: Where runs are kept.
        mark: What the plan is found by.

    Raises:
        StateError: The state folder cannot be written.
    """
    place = runs_dir / _BY_PLAN / mark
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StateError(
            f"{place} cannot be made: {error.strerror or error}; free space, or correct the "
            "permissions of the state folder",
            errno=error.errno,
        ) from error
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def read_lock(folder: Path, payloads: Payloads = PLAIN) -> dict[str, Any] | None:
    """Return what a run is done with; ``None`` if it never came so far. Reads the disk.

    Raises:
        IntegrityError: It is sealed, and was changed.
        StateError: It cannot be read, or is damaged.
    """
    path = folder / LOCK
    return unseal_json(payloads, LOCK, read_json(path), path=path) if path.exists() else None


def write_lock(folder: Path, lock: Mapping[str, Any], payloads: Payloads = PLAIN) -> None:
    """Write what a run is done with. Blocks on the disk.

    Raises:
        StateError: It cannot be written.
    """
    write_json(folder / LOCK, seal_json(payloads, LOCK, lock, open={}))
