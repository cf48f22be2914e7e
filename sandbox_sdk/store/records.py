"""Statements on records of sandboxes and runs; each runs in the caller's transaction."""

from __future__ import annotations

import json
import sqlite3

import attrs

from sandbox_sdk.errors import ConfigError
from sandbox_sdk.store import far_runs, once
from sandbox_sdk.store.base import Once
from sandbox_sdk.store.tables import SELECT, Lives, ended_text, holder, key, not_found, read_info
from sandbox_sdk.values import SandboxInfo
from sandbox_sdk.wire import to_json


def insert(
    connection: sqlite3.Connection, info: SandboxInfo, noted: Once | None = None
) -> SandboxInfo:
    """Record a sandbox and its initial files, unless the request for it was noted before.

    Raises:
        ConfigError: There is one with this id.
        IdempotencyMismatch: The request's first time asked for something else.
    """
    if noted is not None and (first := once.first(connection, info, noted)) is not None:
        return first
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
                ended_text(info.ended),
            ),
        )
    except sqlite3.IntegrityError:
        raise ConfigError(f"there is a sandbox with the id {info.id} already") from None
    connection.executemany(
        "INSERT INTO initial_files (sandbox_id, path, content) VALUES (?, ?, ?)",
        [(info.id, path, content) for path, content in info.spec.files.items()],
    )
    return info


def get(connection: sqlite3.Connection, id: str, lives: Lives) -> SandboxInfo:
    """Return one record.

    Raises:
        SandboxNotFound: There is none.
        StateError: It is damaged.
    """
    row = connection.execute(SELECT + "WHERE id = ?", (key(id),)).fetchone()
    if row is None:
        raise not_found(id)
    return read_info(row, lives)


def initial_files(connection: sqlite3.Connection, id: str) -> dict[str, bytes]:
    """Return the files to write at the first set-up.

    Raises:
        SandboxNotFound: There is no such sandbox.
    """
    holder(connection, id)
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
        SELECT + "WHERE internal = 0 OR ? ORDER BY created_at, id", (include_internal,)
    )
    return tuple(read_info(row, lives) for row in rows)


def insert_run(connection: sqlite3.Connection, run_id: str, sandbox_id: str) -> None:
    """Record that a run belongs to a sandbox.

    Raises:
        SandboxNotFound: There is no such sandbox.
        ConfigError: There is a run with this id.
    """
    holder(connection, sandbox_id)
    try:
        connection.execute("INSERT INTO runs (id, sandbox_id) VALUES (?, ?)", (run_id, sandbox_id))
    except sqlite3.IntegrityError:
        raise ConfigError(f"there is a run with the id {run_id} already") from None


def select_runs(connection: sqlite3.Connection, sandbox_id: str) -> tuple[str, ...]:
    """Return the ids of a sandbox's runs, oldest first."""
    rows = connection.execute(
        "SELECT id FROM runs WHERE sandbox_id = ? ORDER BY id", (key(sandbox_id),)
    )
    here = tuple(run_id for (run_id,) in rows)
    return here or far_runs.select(connection, sandbox_id=key(sandbox_id))
