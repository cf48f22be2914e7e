"""The tables of the state database, and every statement on them.

Each function takes the connection of an open transaction. A lease is taken and used by
compare-and-swap on its owner and fence.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from typing import TypeVar

import attrs

from sandbox_sdk.errors import ConfigError, SandboxBusy, SandboxNotFound, StateError
from sandbox_sdk.store.base import DeadLease, Lease
from sandbox_sdk.store.owner import Owner
from sandbox_sdk.values import Ended, SandboxInfo, SandboxSpec, SandboxState
from sandbox_sdk.wire import from_json, to_json

SCHEMA_VERSION = 1
"""The version of the tables below; a file with a higher one is refused."""

_SCHEMA = (
    """CREATE TABLE sandboxes (
        id TEXT PRIMARY KEY,
        internal INTEGER NOT NULL,
        spec TEXT NOT NULL,
        state TEXT NOT NULL,
        created_at REAL NOT NULL,
        started_at REAL,
        ended TEXT,
        owner TEXT,
        fence INTEGER NOT NULL DEFAULT 0
    )""",
    "CREATE INDEX held ON sandboxes (owner) WHERE owner IS NOT NULL",
    """CREATE TABLE initial_files (
        sandbox_id TEXT NOT NULL REFERENCES sandboxes (id) ON DELETE CASCADE,
        path TEXT NOT NULL,
        content BLOB NOT NULL,
        PRIMARY KEY (sandbox_id, path)
    )""",
    """CREATE TABLE runs (
        id TEXT PRIMARY KEY,
        sandbox_id TEXT NOT NULL REFERENCES sandboxes (id) ON DELETE CASCADE
    )""",
    "CREATE INDEX runs_of ON runs (sandbox_id)",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
_SELECT = "SELECT id, spec, state, created_at, started_at, ended, owner FROM sandboxes "

T = TypeVar("T")

Lives = Callable[[Owner], bool]
"""Says whether an owner's process still runs."""

# id, spec, state, created_at, started_at, ended, owner
_Row = tuple[str, str, str, float, float | None, str | None, str | None]


def migrate(connection: sqlite3.Connection) -> None:
    """Make the tables in a new database; accept one of this version.

    Raises:
        StateError: A newer version of the SDK wrote the database.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == SCHEMA_VERSION:
        return
    if version != 0:
        raise StateError(
            f"the state database has version {version}, and this SDK knows {SCHEMA_VERSION}: a "
            "newer SDK wrote it; upgrade sandbox-sdk, or set state_dir to another folder"
        )
    connection.execute("BEGIN IMMEDIATE")
    for statement in _SCHEMA:
        connection.execute(statement)
    connection.execute("COMMIT")


def insert(connection: sqlite3.Connection, info: SandboxInfo) -> None:
    """Record a sandbox and its initial files.

    Raises:
        ConfigError: There is one with this id.
    """
    spec = attrs.evolve(info.spec, files={})
    try:
        connection.execute(
            "INSERT INTO sandboxes (id, internal, spec, state, created_at, started_at, ended)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                info.id,
                spec.internal,
                json.dumps(to_json(spec)),
                info.state,
                info.created_at,
                info.started_at,
                _ended_text(info.ended),
            ),
        )
    except sqlite3.IntegrityError:
        raise ConfigError(f"there is a sandbox with the id {info.id} already") from None
    connection.executemany(
        "INSERT INTO initial_files (sandbox_id, path, content) VALUES (?, ?, ?)",
        [(info.id, path, content) for path, content in info.spec.files.items()],
    )


def get(connection: sqlite3.Connection, id: str, lives: Lives) -> SandboxInfo:
    """Return one record.

    Raises:
        SandboxNotFound: There is none.
        StateError: It is damaged.
    """
    row = connection.execute(_SELECT + "WHERE id = ?", (id,)).fetchone()
    if row is None:
        raise _not_found(id)
    return _info(row, lives)


def initial_files(connection: sqlite3.Connection, id: str) -> dict[str, bytes]:
    """Return the files to write at the first set-up.

    Raises:
        SandboxNotFound: There is no such sandbox.
    """
    _holder(connection, id)
    query = "SELECT path, content FROM initial_files WHERE sandbox_id = ?"
    return dict(connection.execute(query, (id,)).fetchall())


def select(
    connection: sqlite3.Connection, lives: Lives, *, include_internal: bool
) -> tuple[SandboxInfo, ...]:
    """Return all records, oldest first.

    Raises:
        StateError: One is damaged.
    """
    rows = connection.execute(
        _SELECT + "WHERE internal = 0 OR ? ORDER BY created_at, id", (include_internal,)
    )
    return tuple(_info(row, lives) for row in rows)


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
        (state, started_at, _ended_text(ended), release, *_swap(lease, owner)),
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
    holder, fence = _holder(connection, id)
    if holder is not None and holder != owner and lives(holder):
        raise _busy(id, holder)
    connection.execute(
        "UPDATE sandboxes SET owner = ?, fence = ? WHERE id = ? AND fence = ?",
        (_owner_text(owner), fence + 1, id, fence),
    )
    return Lease(sandbox_id=id, fence=fence + 1)


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
            owner_pid=holder.pid,
            state=_read(sandbox_id, SandboxState, state),
            internal=bool(internal),
        )
        for sandbox_id, text, state, internal in rows
        if not lives(holder := _read_json(sandbox_id, Owner, text))
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


def insert_run(connection: sqlite3.Connection, run_id: str, sandbox_id: str) -> None:
    """Record that a run belongs to a sandbox.

    Raises:
        SandboxNotFound: There is no such sandbox.
        ConfigError: There is a run with this id.
    """
    _holder(connection, sandbox_id)
    try:
        connection.execute("INSERT INTO runs (id, sandbox_id) VALUES (?, ?)", (run_id, sandbox_id))
    except sqlite3.IntegrityError:
        raise ConfigError(f"there is a run with the id {run_id} already") from None


def select_runs(connection: sqlite3.Connection, sandbox_id: str) -> tuple[str, ...]:
    """Return the ids of a sandbox's runs, oldest first."""
    rows = connection.execute("SELECT id FROM runs WHERE sandbox_id = ? ORDER BY id", (sandbox_id,))
    return tuple(run_id for (run_id,) in rows)


def _info(row: _Row, lives: Lives) -> SandboxInfo:
    sandbox_id, spec, state, created_at, started_at, ended, owner = row
    holder = None if owner is None else _read_json(sandbox_id, Owner, owner)
    alive = holder is not None and lives(holder)
    recorded = _read(sandbox_id, SandboxState, state)
    return SandboxInfo(
        id=sandbox_id,
        spec=_read_json(sandbox_id, SandboxSpec, spec),
        # Its process is gone, and with it the sandbox, whether or not it was reaped yet.
        state=SandboxState.LOST if recorded is SandboxState.RUNNING and not alive else recorded,
        created_at=created_at,
        started_at=started_at,
        owner_pid=holder.pid if alive and holder is not None else None,
        ended=None if ended is None else _read_json(sandbox_id, Ended, ended),
    )


def _holder(connection: sqlite3.Connection, id: str) -> tuple[Owner | None, int]:
    """Return who holds a sandbox, dead or alive, and its fence."""
    row = connection.execute("SELECT owner, fence FROM sandboxes WHERE id = ?", (id,)).fetchone()
    if row is None:
        raise _not_found(id)
    text, fence = row
    return None if text is None else _read_json(id, Owner, text), fence


def _require_one(connection: sqlite3.Connection, changed: int, lease: Lease) -> None:
    """Explain why a write under a lease changed nothing."""
    if changed == 1:
        return
    holder, _ = _holder(connection, lease.sandbox_id)
    raise _busy(lease.sandbox_id, holder)


def _swap(lease: Lease, owner: Owner) -> tuple[str, int, str]:
    return lease.sandbox_id, lease.fence, _owner_text(owner)


def _owner_text(owner: Owner) -> str:
    return json.dumps(to_json(owner))


def _ended_text(ended: Ended | None) -> str | None:
    return None if ended is None else json.dumps(to_json(ended))


def _read_json(id: str, cls: type[T], text: str) -> T:
    try:
        return _read(id, cls, json.loads(text))
    except ValueError as error:
        raise _damaged(id, error) from error


def _read(id: str, cls: type[T], data: object) -> T:
    try:
        return from_json(cls, data, lenient=True)
    except ConfigError as error:
        raise _damaged(id, error) from error


def _damaged(id: str, error: Exception) -> StateError:
    return StateError(
        f"the record of sandbox {id} is damaged: {error}; restore the state database, or move "
        "the state folder away",
        sandbox_id=id,
    )


def _not_found(id: str) -> SandboxNotFound:
    return SandboxNotFound(
        f"there is no sandbox {id[:60]!r} in this state folder; list_sandboxes() shows those there "
        "are",
        sandbox_id=id,
    )


def _busy(id: str, holder: Owner | None) -> SandboxBusy:
    if holder is None:
        return SandboxBusy(
            f"sandbox {id} was released meanwhile, so this write came too late; set it up again",
            sandbox_id=id,
        )
    return SandboxBusy(
        f"sandbox {id} is held by process {holder.pid}; clean it up or close the client there "
        "first (another process may read its record, files and results)",
        sandbox_id=id,
        owner_pid=holder.pid,
    )
