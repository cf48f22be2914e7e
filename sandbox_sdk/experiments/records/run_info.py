"""The runs of a state folder in a line each."""

from __future__ import annotations

from pathlib import Path

import attrs

from sandbox_sdk.experiments.records.run_folder import read_plan
from sandbox_sdk.experiments.records.run_lease import is_driven


@attrs.frozen(kw_only=True)
class RunInfo:
    """A run as its plan tells it.

    Attributes:
        id: The run's id.
        name: The user's name for it.
        created_at: Seconds since the epoch.
        planned: Trials there are.
        models: The models that are asked.
        sandbox_id: The sandbox it ran in, where that was one for all.
        live: Whether a process is driving it now.
    """

    id: str
    name: str | None
    created_at: float
    planned: int
    models: tuple[str, ...]
    sandbox_id: str | None
    live: bool


def run_info(folder: Path) -> RunInfo:
    """Return a run in a few facts, without reading its journal. Reads the disk.

    Raises:
        StateError: The folder is damaged.
    """
    plan = read_plan(folder)
    models = [each["config"].get("model") for each in plan["conditions"]]
    return RunInfo(
        id=plan["run"],
        name=plan["config"].get("name"),
        created_at=(folder / "plan.json").stat().st_mtime,
        planned=plan["planned"],
        models=tuple(dict.fromkeys(model for model in models if model)),
        sandbox_id=plan["sandbox"],
        live=is_driven(folder),
    )
