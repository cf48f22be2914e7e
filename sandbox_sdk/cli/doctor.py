"""``doctor``: what this host allows, and the fix for what is missing."""

from __future__ import annotations

import anyio
import click

from sandbox_sdk.cli.running import Session, global_options, run
from sandbox_sdk.errors import SandboxError
from sandbox_sdk.isolation.probe import Probe, missing, probe_host
from sandbox_sdk.policies import MEDIUM
from sandbox_sdk.values import Wall
from sandbox_sdk.wire import to_json


@click.command()
@global_options
def doctor() -> None:
    """Look at every wall of isolation on this host, and tell the fix for each that is missing.

    Makes one sandbox to be sure. The exit code is 1 if no sandbox of the default level can be had.
    """
    run(_doctor)


async def _doctor(session: Session) -> int:
    output, uids = session.output, session.settings.uid_range
    probes = await anyio.to_thread.run_sync(probe_host, (uids.first, uids.count))
    failed = missing(probes, MEDIUM.level)
    if not failed:
        wall = await _try(session)
        probes = (*probes, Probe(wall=wall, needed_by=(MEDIUM.level,)))
        failed = missing(probes, MEDIUM.level)
    output.table(("wall", "", "needed from", "found"), map(_row, probes))
    if mendable := [probe.wall for probe in probes if probe.wall.fix]:
        output.heading("What to do about what is missing")
        for wall in mendable:
            output.line(f"{wall.name}: {wall.fix}")
    output.heading(
        f"Security level {MEDIUM.level} cannot be had here: {', '.join(w.name for w in failed)}"
        if failed
        else f"Security level {MEDIUM.level}, the default, can be had here."
    )
    output.document(
        {
            MEDIUM.level: not failed,
            "walls": [{**to_json(p.wall), "needed_by": list(p.needed_by)} for p in probes],
        }
    )
    return 1 if failed else 0


async def _try(session: Session) -> Wall:
    """Set up a real sandbox, whose walls are proven from inside, and remove it."""
    name = "real_sandbox"
    try:
        async with session.client() as client:
            sandbox = await client.create_sandbox("doctor", security_level=MEDIUM.level)
            try:
                async with sandbox:
                    proven = len(sandbox.isolation.walls) if sandbox.isolation else 0
            finally:
                with anyio.CancelScope(shield=True):
                    await client.delete_sandbox(sandbox.id)
    except SandboxError as error:
        return Wall(name=name, in_force=False, detail=error.message, fix="as the message says")
    return Wall(name=name, in_force=True, detail=f"made one; {proven} walls proven from inside")


def _row(probe: Probe) -> tuple[str, ...]:
    state = "ok" if probe.wall.in_force else "missing" if probe.needed_by else "note"
    return (
        probe.wall.name,
        state,
        probe.needed_by[0] if probe.needed_by else "",
        probe.wall.detail,
    )
