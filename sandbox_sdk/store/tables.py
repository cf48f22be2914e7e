"""The tables of the state database, and how their rows become values."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar, cast

from sandbox_sdk.errors import ConfigError, SandboxNotFound, StateError
from sandbox_sdk.store.far_runs import FAR_RUNS
from sandbox_sdk.store.notes import NOTES
from sandbox_sdk.store.once import ONCE
from sandbox_sdk.store.outcomes import OUTCOMES
from sandbox_sdk.store.owner import Owner
from sandbox_sdk.store.sealing import SpecSeals
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
_ADDED = (NOTES, ONCE, OUTCOMES, FAR_RUNS)
T = TypeVar("T")

Lives = Callable[[Owner], bool]
"""Says whether an owner's process still runs."""

SELECT = "SELECT id, spec, state, created_at, started_at, ended, owner FROM sandboxes "
"""What every ``Row`` is read with."""

Row = tuple[str, str, str, float, float | None, str | None, str | None]
"""The columns of ``SELECT``."""


def migrate(connection: sqlite3.Connection) -> None:
    """Make the tables in a new database; accept one of this version.

    Raises:
        StateError: A newer version of the SDK wrote the database.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == SCHEMA_VERSION:
        for statement in _ADDED:
            connection.execute(statement)
        return
    if version != 0:
        raise StateError(
            f"the state database has version {version}, and this SDK knows {SCHEMA_VERSION}: a "
            "newer SDK wrote it; upgrade sandbox-sdk, or set state_dir to another folder"
        )
    connection.execute("BEGIN IMMEDIATE")
    for statement in (*_SCHEMA, *_ADDED):
        connection.execute(statement)
    connection.execute("COMMIT")


def read_info(row: Row, lives: Lives, seals: SpecSeals, *, needed: bool = False) -> SandboxInfo:
    """Return the record of a row.

    Args:
        row: The row.
        lives: Says whether an owner's process still runs.
        seals: Opens what is sealed.
        needed: Whether what is sealed matters; else it is hidden where its key is not here.

    Raises:
        KeyNotFound: It matters, and its key is not here.
        IntegrityError: What is sealed was changed.
        StateError: It is damaged.
    """
    sandbox_id, spec, state, created_at, started_at, ended, owner = row
    held_by = None if owner is None else read_json(sandbox_id, Owner, owner)
    alive = held_by is not None and lives(held_by)
    recorded = read(sandbox_id, SandboxState, state)
    return SandboxInfo(
        id=sandbox_id,
        spec=read(
            sandbox_id,
            SandboxSpec,
            seals.unseal(sandbox_id, read_object(sandbox_id, spec), needed=needed),
        ),
        # Its process is gone, and with it the sandbox, whether or not it was reaped yet.
        state=SandboxState.LOST if recorded is SandboxState.RUNNING and not alive else recorded,
        created_at=created_at,
        started_at=started_at,
        owner_pid=held_by.pid if alive and held_by is not None else None,
        ended=None if ended is None else read_json(sandbox_id, Ended, ended),
    )


def holder(connection: sqlite3.Connection, id: str) -> tuple[Owner | None, int]:
    """Return who holds a sandbox, dead or alive, and its fence.

    Raises:
        SandboxNotFound: There is no such sandbox.
        StateError: The record is damaged.
    """
    row = connection.execute(
        "SELECT owner, fence FROM sandboxes WHERE id = ?", (key(id),)
    ).fetchone()
    if row is None:
        raise not_found(id)
    text, fence = row
    return None if text is None else read_json(id, Owner, text), fence


def key(id: str) -> str:
    """Return an id as SQLite can take it; ours are all ASCII, and no id is empty."""
    return id if id.isascii() else ""


def ended_text(ended: Ended | None) -> str | None:
    """Return how something ended as its column holds it."""
    return None if ended is None else json.dumps(to_json(ended))


def read_json(id: str, cls: type[T], text: str) -> T:
    """Return the value that a column of a sandbox holds as JSON.

    Raises:
        StateError: It is damaged.
    """
    return read(id, cls, read_object(id, text))


# Any: what the object holds is for its reader to say.
def read_object(id: str, text: str) -> dict[str, Any]:
    """Return the JSON object that a column of a sandbox holds.

    Raises:
        StateError: It is damaged.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise _damaged(id, error) from error
    if not isinstance(value, dict):
        raise _damaged(id, ValueError("it is no object"))
    return cast("dict[str, Any]", value)


def read(id: str, cls: type[T], data: object) -> T:
    """Return the value that a column of a sandbox holds.

    Raises:
        StateError: It is damaged.
    """
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


def not_found(id: str) -> SandboxNotFound:
    """Return the error for an unknown id; the caller raises it."""
    return SandboxNotFound(
        f"there is no sandbox {id[:60]!r} in this state folder; list_sandboxes() shows those there "
        "are",
        sandbox_id=id,
    )
