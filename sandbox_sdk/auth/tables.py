"""The tables of ``auth/auth.db``: tenants, keys, clients, sessions, and how their rows are read."""

from __future__ import annotations

import sqlite3

from sandbox_sdk.errors import StateError

SCHEMA_VERSION = 1
"""The version of the tables below; a file with a higher one is refused."""

_SCHEMA = (
    """CREATE TABLE tenants (
        id TEXT PRIMARY KEY,
        created_at DOUBLE PRECISION NOT NULL,
        disabled_at DOUBLE PRECISION
    )""",
    """CREATE TABLE api_keys (
        id TEXT PRIMARY KEY,
        tenant TEXT NOT NULL REFERENCES tenants (id),
        subject TEXT NOT NULL,
        grants TEXT NOT NULL,
        created_at DOUBLE PRECISION NOT NULL,
        expires_at DOUBLE PRECISION,
        revoked_at DOUBLE PRECISION,
        used_at DOUBLE PRECISION,
        digest TEXT NOT NULL UNIQUE
    )""",
    """CREATE TABLE clients (
        id TEXT PRIMARY KEY,
        tenant TEXT NOT NULL REFERENCES tenants (id),
        subject TEXT NOT NULL,
        grants TEXT NOT NULL,
        created_at DOUBLE PRECISION NOT NULL,
        expires_at DOUBLE PRECISION,
        revoked_at DOUBLE PRECISION,
        used_at DOUBLE PRECISION
    )""",
    """CREATE TABLE client_secrets (
        digest TEXT PRIMARY KEY,
        client TEXT NOT NULL REFERENCES clients (id),
        created_at DOUBLE PRECISION NOT NULL
    )""",
    "CREATE INDEX secrets_of ON client_secrets (client)",
    """CREATE TABLE sessions (
        id TEXT PRIMARY KEY,
        tenant TEXT NOT NULL REFERENCES tenants (id),
        subject TEXT NOT NULL,
        grants TEXT NOT NULL,
        created_at DOUBLE PRECISION NOT NULL,
        expires_at DOUBLE PRECISION NOT NULL,
        revoked_at DOUBLE PRECISION,
        used_at DOUBLE PRECISION,
        api_key TEXT NOT NULL REFERENCES api_keys (id),
        place INTEGER NOT NULL
    )""",
    "CREATE INDEX sessions_of_key ON sessions (api_key)",
    "CREATE INDEX sessions_of_tenant ON sessions (tenant, subject)",
    """CREATE TABLE refresh_tokens (
        digest TEXT PRIMARY KEY,
        session TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
        place INTEGER NOT NULL,
        used_at DOUBLE PRECISION
    )""",
    "CREATE INDEX tokens_of ON refresh_tokens (session)",
    "CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL)",
    "INSERT INTO counters (name, value) VALUES ('revocations', 0)",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)


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
            f"auth/auth.db has version {version}, and this SDK knows {SCHEMA_VERSION}: a newer SDK "
            "wrote it; upgrade sandbox-sdk"
        )
    connection.execute("BEGIN IMMEDIATE")
    for statement in _SCHEMA:
        connection.execute(statement)
    connection.execute("COMMIT")


def revocations(connection: sqlite3.Connection) -> int:
    """Return a number that rises with every revocation."""
    (value,) = connection.execute(
        "SELECT value FROM counters WHERE name = 'revocations'"
    ).fetchone()
    return int(value)


def count_revocation(connection: sqlite3.Connection) -> None:
    """Tell whoever waits that something was revoked, in the transaction that revokes it."""
    connection.execute("UPDATE counters SET value = value + 1 WHERE name = 'revocations'")
