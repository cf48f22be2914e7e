"""``runs list`` and ``runs show``: what was run in the state folder."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import anyio.to_thread
import attrs
import click

from sandbox_sdk.cli.batches import show, to_document
from sandbox_sdk.cli.running import Session, global_options, run
from sandbox_sdk.experiments.records.run_info import RunInfo

_MOST_SHOWN = 20


@click.group()
@global_options
def runs() -> None:
    """List runs and show what they gave."""


@runs.command("list")
@global_options
def list_() -> None:
    """List all runs, oldest first."""
    run(_list)


async def _list(session: Session) -> int:
    async with session.client() as client:
        found = await client.list_runs()
    session.output.document({"runs": [attrs.asdict(info) for info in found]})
    if found:
        columns = ("id", "name", "created", "trials", "models", "state")
        session.output.table(columns, map(_row, found))
    else:
        session.output.note("there are no runs")
    return 0


def _row(info: RunInfo) -> tuple[str, ...]:
    created = datetime.fromtimestamp(info.created_at).astimezone()
    return (
        info.id,
        info.name or "",
        f"{created:%Y-%m-%d %H:%M:%S}",
        f"{info.planned:,}",
        ", ".join(info.models) or "none",
        "running" if info.live else "",
    )


@runs.command("show")
@click.option(
    "--export",
    "target",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write the run as a folder that opens anywhere, below this one.",
)
@global_options
@click.argument("id")
def show_(id: str, target: Path | None) -> None:
    """Show what run ID gave so far, and which trials did not complete."""
    run(lambda session: _show(session, id, target))


async def _show(session: Session, id: str, target: Path | None) -> int:
    async with session.client() as client:
        result = await client.get_run(id)
    document = to_document(result)
    if target is not None:
        exported = await anyio.to_thread.run_sync(result.export, target)
        document["exported"] = str(exported)
        session.output.note(f"exported to {exported}")
    session.output.document(document)
    for notice in result.notices:
        session.output.note(notice)
    show(session, result)
    failures = result.failures()
    rows = [
        (
            trial.condition,
            trial.sample,
            str(trial.repeat),
            trial.state.value if trial.state else "",
            trial.error or trial.limit or "",
            str(trial.attempts),
        )
        for trial in failures[:_MOST_SHOWN]
    ]
    if rows:
        session.output.heading(f"{len(failures):,} trials did not complete")
        columns = ("condition", "sample", "repeat", "state", "error or limit", "attempts")
        session.output.table(columns, rows)
    return 0
