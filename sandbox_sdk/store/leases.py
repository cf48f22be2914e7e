"""Statements on leases, and on records under one; each runs in the caller's transaction.

A lease is taken and used by compare-and-swap on its owner and fence.
"""

from __future__ import annotations

import json
import sqlite3

from sandbox_sdk.errors import SandboxBusy
from sandbox_sdk.store.base import DeadLease, Lease, Taken
from sandbox_sdk.store.owner import Owner
from sandbox_sdk.store.tables import Lives, ended_text, holder, key, read, read_json
from sandbox_sdk.values import Ended, SandboxState
from sandbox_sdk.wire import to_json


def update(
    connection: sqlite3.Connection,
    lease: Lease,
    owner: Owner,
    *,
    state: SandboxState | None,
    started_at: float | None,
    ended: Ended | None,
    release: bool,
) -> None:
    """Change what is not ``None`` of a record under a lease.

    Raises:
        SandboxNotFound: The sandbox was deleted.
        SandboxBusy: The lease is no longer this owner's.
    """
    changed = connection.execute(
        "UPDATE sandboxes SET state = coalesce(?, state), started_at = coalesce(?, started_at),"
        " ended = coalesce(?, ended), owner = CASE WHEN ? THEN NULL ELSE owner END"
        " WHERE id = ? AND fence = ? AND owner = ?",
        (state, started_at, ended_text(ended), release, *_swap(lease, owner)),
    )
    _require_one(connection, changed.rowcount, lease)


def delete(connection: sqlite3.Connection, lease: Lease, owner: Owner) -> None:
    """Delete a record under a lease, with its initial files and list of runs.

    Raises:
        SandboxNotFound: The sandbox was deleted before.
        SandboxBusy: The lease is no longer this owner's.
    """
    changed = connection.execute(
        "DELETE FROM sandboxes WHERE id = ? AND fence = ? AND owner = ?", _swap(lease, owner)
    )
    _require_one(connection, changed.rowcount, lease)


def acquire(connection: sqlite3.Connection, id: str, owner: Owner, lives: Lives) -> Lease:
    """Take a lease from nobody, from a dead owner, or anew from this same owner.

    Raises:
        SandboxNotFound: There is no such sandbox.
        SandboxBusy: Another live owner holds it.
    """
    held_by, fence = holder(connection, id)
    if held_by is not None and held_by != owner and lives(held_by):
        raise _busy(id, held_by)
    connection.execute(
        "UPDATE sandboxes SET owner = ?, fence = ? WHERE id = ? AND fence = ?",
        (_owner_text(owner), fence + 1, id, fence),
    )
    return Lease(sandbox_id=id, fence=fence + 1)


def put_back(connection: sqlite3.Connection, taken: Taken, owner: Owner) -> None:
    """Make a record what it was before it was taken, if it is still this owner's."""
    connection.execute(
        "UPDATE sandboxes SET owner = NULL, state = ?, started_at = ?"
        " WHERE id = ? AND fence = ? AND owner = ?",
        (taken.before.state, taken.before.started_at, *_swap(taken.lease, owner)),
    )


def release(connection: sqlite3.Connection, lease: Lease, owner: Owner) -> None:
    """Give a lease back, if it is still this owner's."""
    connection.execute(
        "UPDATE sandboxes SET owner = NULL WHERE id = ? AND fence = ? AND owner = ?",
        _swap(lease, owner),
    )


def release_all(connection: sqlite3.Connection, owner: Owner) -> None:
    """Give back every lease of an owner."""
    connection.execute("UPDATE sandboxes SET owner = NULL WHERE owner = ?", (_owner_text(owner),))


def dead_leases(connection: sqlite3.Connection, lives: Lives) -> tuple[DeadLease, ...]:
    """Return the leases whose owner died, oldest sandbox first."""
    rows = connection.execute(
        "SELECT id, owner, state, internal FROM sandboxes WHERE owner IS NOT NULL"
        " ORDER BY created_at, id"
    ).fetchall()
    found = [
        DeadLease(
            sandbox_id=sandbox_id,
            owner_pid=dead.pid,
            state=read(sandbox_id, SandboxState, state),
            internal=bool(internal),
        )
        for sandbox_id, text, state, internal in rows
        if not lives(dead := read_json(sandbox_id, Owner, text))
    ]
    return tuple(found)


def mark_lost(connection: sqlite3.Connection, lease: Lease, owner: Owner) -> None:
    """Turn ``running`` into ``lost`` and give the lease back.

    Raises:
        SandboxNotFound: The sandbox was deleted.
        SandboxBusy: The lease is no longer this owner's.
    """
    changed = connection.execute(
        "UPDATE sandboxes SET owner = NULL, state = CASE state WHEN ? THEN ? ELSE state END"
        " WHERE id = ? AND fence = ? AND owner = ?",
        (SandboxState.RUNNING, SandboxState.LOST, *_swap(lease, owner)),
    )
    _require_one(connection, changed.rowcount, lease)


def _require_one(connection: sqlite3.Connection, changed: int, lease: Lease) -> None:
    """Explain why a write under a lease changed nothing."""
    if changed == 1:
        return
    held_by, _ = holder(connection, lease.sandbox_id)
    raise _busy(lease.sandbox_id, held_by)


def _swap(lease: Lease, owner: Owner) -> tuple[str, int, str]:
    return key(lease.sandbox_id), lease.fence, _owner_text(owner)


def _owner_text(owner: Owner) -> str:
    return json.dumps(to_json(owner))


def _busy(id: str, held_by: Owner | None) -> SandboxBusy:
    if held_by is None:
        return SandboxBusy(
            f"sandbox {id} was released meanwhile, so this write came too late; set it up again",
            sandbox_id=id,
        )
    return SandboxBusy(
        f"sandbox {id} is held by process {held_by.pid}; clean it up or close the client there "
        "first (another process may read its record, files and results)",
        sandbox_id=id,
        owner_pid=held_by.pid,
    )
