"""``list``, ``export`` and ``delete``: the sandboxes of the state folder."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from sandbox_sdk.cli.running import Session, global_options, run
from sandbox_sdk.errors import SandboxError
from sandbox_sdk.values import SandboxInfo
from sandbox_sdk.wire import error_to_json, to_json


@click.command("list")
@global_options
def list_() -> None:
    """List all sandboxes, oldest first."""
    run(_list)


async def _list(session: Session) -> int:
    async with session.client() as client:
        infos = await client.list_sandboxes()
    session.output.document({"sandboxes": [to_json(info) for info in infos]})
    if infos:
        session.output.table(("id", "name", "state", "created", "ended"), map(_row, infos))
    else:
        session.output.note("there are no sandboxes")
    return 0


def _row(info: SandboxInfo) -> tuple[str, ...]:
    created = datetime.fromtimestamp(info.created_at).astimezone()
    ended = str(info.ended) if info.ended else ""
    return (info.id, info.name, info.state.value, f"{created:%Y-%m-%d %H:%M:%S}", ended)


@click.command()
@global_options
@click.argument("id")
@click.argument("path", type=click.Path(file_okay=False, path_type=Path))
def export(id: str, path: Path) -> None:
    """Write the results of all experiments of sandbox ID below the folder PATH."""
    run(lambda session: _export(session, id, path))


async def _export(session: Session, id: str, path: Path) -> int:
    async with session.client() as client:
        sandbox = await client.get_sandbox(id)
        with session.output.working(f"exporting the results of {id}"):
            folders = await sandbox.export_results(path)
    session.output.document({"exported": [str(folder) for folder in folders]})
    for folder in folders:
        session.output.line(str(folder))
    return 0


@click.command()
@global_options
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
def delete(ids: tuple[str, ...]) -> None:
    """End sandboxes and remove their records, workspaces and results for good."""
    run(lambda session: _delete(session, ids))


async def _delete(session: Session, ids: tuple[str, ...]) -> int:
    deleted: list[str] = []
    failed: dict[str, SandboxError] = {}
    async with session.client() as client:
        for one in dict.fromkeys(ids):
            try:
                await client.delete_sandbox(one)
            except SandboxError as error:
                failed[one] = error
                session.output.note(f"error: {error.message}")
            else:
                deleted.append(one)
                session.output.line(f"deleted {one}")
    errors = {one: error_to_json(error) for one, error in failed.items()}
    session.output.document({"deleted": deleted, "failed": errors})
    return 1 if failed else 0
