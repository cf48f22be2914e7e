"""Statements on records of sandboxes and runs; each runs in the caller's transaction."""

from __future__ import annotations

import sqlite3

from sandbox_sdk.errors import ConfigError
from sandbox_sdk.store import far_runs, once
from sandbox_sdk.store.base import Once
from sandbox_sdk.store.sealing import Kept, SpecSeals
from sandbox_sdk.store.tables import (
    SELECT,
    Lives,
    ended_text,
    holder,
    key,
    not_found,
    read_info,
    read_object,
)
from sandbox_sdk.values import SandboxInfo


def insert(
    connection: sqlite3.Connection, info: SandboxInfo, kept: Kept, noted: Once | None = None
) -> SandboxInfo:
    """Record a sandbox and its initial files, unless the request for it was noted before.

    Args:
        connection: The database.
        info: The sandbox.
        kept: Its settings as they are recorded.
        noted: The request that it is for, which has one effect however often it comes.

    Raises:
        ConfigError: There is one with this id.
        IdempotencyMismatch: The request's first time asked for something else.
    """
    if noted is not None and (first := once.first(connection, info, noted)) is not None:
        return first
    try:
        connection.execute(
            "INSERT INTO sandboxes (id, internal, spec, state, created_at, started_at, ended)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                info.id,
                info.spec.internal,
                kept.spec,
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
        [(info.id, path, content) for path, content in kept.files.items()],
    )
    return info


def get(
    connection: sqlite3.Connection, id: str, lives: Lives, seals: SpecSeals, *, needed: bool = False
) -> SandboxInfo:
    """Return one record.

    Args:
        connection: The database.
        id: The sandbox.
        lives: Says whether an owner's process still runs.
        seals: Opens what is sealed.
        needed: Whether what is sealed matters; else it is hidden where its key is not here.

    Raises:
        SandboxNotFound: There is none.
        KeyNotFound: What is sealed matters, and its key is not here.
        IntegrityError: What is sealed was changed.
        StateError: It is damaged.
    """
    row = connection.execute(SELECT + "WHERE id = ?", (key(id),)).fetchone()
    if row is None:
        raise not_found(id)
    return read_info(row, lives, seals, needed=needed)


def initial_files(connection: sqlite3.Connection, id: str, seals: SpecSeals) -> dict[str, bytes]:
    """Return the files to write at the first set-up.

    Raises:
        SandboxNotFound: There is no such sandbox.
        KeyNotFound: They are sealed, and their key is not here.
        IntegrityError: They are sealed, and were changed.
    """
    query = "SELECT spec FROM sandboxes WHERE id = ?"
    row = connection.execute(query, (key(id),)).fetchone()
    if row is None:
        raise not_found(id)
    query = "SELECT path, content FROM initial_files WHERE sandbox_id = ?"
    files: dict[str, bytes] = dict(connection.execute(query, (id,)).fetchall())
    return seals.unseal_files(id, read_object(id, row[0]), files)


def select(
    connection: sqlite3.Connection, lives: Lives, seals: SpecSeals, *, include_internal: bool
) -> tuple[SandboxInfo, ...]:
    """Return all records, oldest first.

    Raises:
        IntegrityError: What is sealed of one was changed.
        StateError: One is damaged.
    """
    rows = connection.execute(
        SELECT + "WHERE internal = 0 OR ? ORDER BY created_at, id", (include_internal,)
    )
    return tuple(read_info(row, lives, seals) for row in rows)


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
