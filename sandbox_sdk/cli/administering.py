"""What the commands of ``admin`` do with a server's credentials, and have recorded."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import anyio

from sandbox_sdk.cli.recording import recording
from sandbox_sdk.cli.running import Session
from sandbox_sdk.errors import CredentialNotFound
from sandbox_sdk.wire import to_json

if TYPE_CHECKING:
    from sandbox_sdk.auth.administration import Administration
    from sandbox_sdk.auth.records import Credential, NewClient, NewKey


@asynccontextmanager
async def administering(session: Session) -> AsyncGenerator[Administration]:
    """Open the credentials of the server whose state folder is set.

    Raises:
        StateError: It is no server's.
    """
    from sandbox_sdk.auth.authority import Authority

    authority = await Authority.open(session.settings.state_dir)
    try:
        yield authority.admin
    finally:
        with anyio.CancelScope(shield=True):
            await authority.aclose()


async def change(
    session: Session,
    what: str,
    name: str,
    find: Callable[[Administration], Callable[[str], Awaitable[object]]],
) -> int:
    """Do something to one that is named, and have it recorded."""
    async with administering(session) as its, recording(session) as record:
        await find(its)(name)
        await record(f"admin.{what}", {"id": name})
    verb = what.rpartition(".")[2]
    session.output.document({"id": name, "done": verb})
    session.output.line(f"{verb.removesuffix('e')}ed {name}")
    return 0


async def make(
    session: Session,
    what: str,
    kind: str,
    make: Callable[[Administration], Awaitable[NewKey | NewClient]],
) -> int:
    """Make one, and show its secret this once."""
    async with administering(session) as its, recording(session) as record:
        made = await make(its)
        about = {"id": made.info.id, "tenant": made.info.tenant, "subject": made.info.subject}
        await record(f"admin.{what}", {**about, "grants": list(made.info.grants)})
    session.output.document({**to_json(made.info), "secret": made.secret})
    holder = f"{made.info.subject} of {made.info.tenant}"
    session.output.line(f"{kind} {made.info.id} for {holder}; its secret is shown this once:")
    session.output.line(f"    {made.secret}")
    return 0


async def show(
    session: Session,
    name: str,
    find: Callable[[Administration], Awaitable[Sequence[Credential]]],
) -> int:
    """List those of a kind."""
    async with administering(session) as its:
        found = await find(its)
    session.output.document({name: [to_json(each) for each in found]})
    columns = ("id", "tenant", "subject", "grants", "created", "used", "ends", "revoked")
    rows = [
        (
            *(each.id, each.tenant, each.subject, " ".join(each.grants)),
            *map(when, (each.created_at, each.used_at, each.expires_at, each.revoked_at)),
        )
        for each in found
    ]
    session.output.table(columns, rows)
    return 0


async def revoke(session: Session, name: str, prefix: str, id: str) -> int:
    """Revoke one of a kind.

    Raises:
        CredentialNotFound: There is none of this id and kind.
    """
    if not id.startswith(prefix):
        raise CredentialNotFound(
            f"{id[:60]!r} is not among {name}: their ids begin with {prefix}; see "
            f"sandbox-sdk admin {name} list"
        )
    return await change(session, f"{name}.revoke", id, lambda its: its.revoke)


def when(seconds: float | None) -> str:
    """Return a time as people read it; nothing for none."""
    if seconds is None:
        return ""
    return f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M:%S}"
