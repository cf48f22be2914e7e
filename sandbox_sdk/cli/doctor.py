"""``doctor``: what this host allows, and the fix for what is missing."""

from __future__ import annotations

import anyio
import click

from sandbox_sdk.cli.running import Session, global_options, run
from sandbox_sdk.errors import SandboxError
from sandbox_sdk.isolation.probe import Probe, missing, probe_host
from sandbox_sdk.policies import BUILT, LEVELS, MEDIUM
from sandbox_sdk.values import SecurityLevel, Wall
from sandbox_sdk.wire import to_json


@click.command()
@global_options
def doctor() -> None:
    """Look at every wall of isolation on this host, and tell the fix for each that is missing.

    Makes one sandbox of each level that can be had, to be sure. The exit code is 1 if no sandbox of
    the default level can be had.
    """
    run(_doctor)


async def _doctor(session: Session) -> int:
    output, uids = session.output, session.settings.uid_range
    probes = await anyio.to_thread.run_sync(probe_host, (uids.first, uids.count))
    levels: list[SecurityLevel] = [level for level in LEVELS if level in BUILT]
    for level in levels:
        if not missing(probes, level):
            probes = (*probes, Probe(wall=await _try(session, level), needed_by=(level,)))
    failed = {level: missing(probes, level) for level in levels}
    output.table(("wall", "", "needed from", "found"), map(_row, probes))
    if mendable := [probe.wall for probe in probes if probe.wall.fix]:
        output.heading("What to do about what is missing")
        for wall in mendable:
            output.line(f"{wall.name}: {wall.fix}")
    for level, lacking in failed.items():
        told = f"Security level {level}{', the default,' if level == MEDIUM.level else ''}"
        names = ", ".join(wall.name for wall in lacking)
        output.heading(f"{told} {f'cannot be had here: {names}' if names else 'can be had here.'}")
    walls = [{**to_json(p.wall), "needed_by": list(p.needed_by)} for p in probes]
    had: dict[str, bool] = {level: not lacking for level, lacking in failed.items()}
    output.document({**had, "walls": walls})
    return 1 if failed[MEDIUM.level] else 0


async def _try(session: Session, level: SecurityLevel) -> Wall:
    """Set up a real sandbox, whose walls are proven from inside, and remove it."""
    name = f"real_sandbox_{level}"
    try:
        async with session.client() as client:
            sandbox = await client.create_sandbox("doctor", security_level=level)
            try:
                async with sandbox:
                    isolation = sandbox.isolation
            finally:
                with anyio.CancelScope(shield=True):
                    await client.delete_sandbox(sandbox.id)
    except SandboxError as error:
        return Wall(name=name, in_force=False, detail=error.message, fix="as the message says")
    made = f"{isolation.runtime} made one; {len(isolation.walls)}" if isolation else "made one; no"
    return Wall(name=name, in_force=True, detail=f"{made} walls proven from inside")


def _row(probe: Probe) -> tuple[str, ...]:
    state = "ok" if probe.wall.in_force else "missing" if probe.needed_by else "note"
    return (
        probe.wall.name,
        state,
        probe.needed_by[0] if probe.needed_by else "",
        probe.wall.detail,
    )
