"""The runs of a state folder in a line each."""

from __future__ import annotations

from pathlib import Path

import attrs

from sandbox_sdk.experiments.records.run_folder import read_head
from sandbox_sdk.experiments.records.run_lease import is_driven


@attrs.frozen(kw_only=True)
class RunInfo:
    """A run as its plan tells it to everybody, sealed or not.

    Attributes:
        id: The run's id.
        name: The user's name for it.
        created_at: Seconds since the epoch.
        planned: Trials there are.
        models: The models that are asked.
        sandbox_id: The sandbox it ran in, where that was one for all.
        live: Whether a process is driving it now.
        key_id: The id of the key that it is sealed with; ``None`` if it is not.
    """

    id: str
    name: str | None
    created_at: float
    planned: int
    models: tuple[str, ...]
    sandbox_id: str | None
    live: bool
    key_id: str | None = None


def run_info(folder: Path) -> RunInfo:
    """Return a run in a few facts, without reading its journal. Reads the disk.

    Raises:
        StateError: The folder is damaged.
    """
    plan = read_head(folder)
    return RunInfo(
        id=plan["run"],
        name=plan["name"],
        created_at=(folder / "plan.json").stat().st_mtime,
        planned=plan["planned"],
        models=tuple(plan["models"]),
        sandbox_id=plan["sandbox"],
        live=is_driven(folder),
        key_id=plan.get("key"),
    )
