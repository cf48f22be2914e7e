"""Tenants, API keys and clients as rows: made, found, listed and revoked, each in one transaction.

Every function runs on the store's connection, in its thread. A tenant that is given limits what
is found to its own; ``None`` is the server's operator, who sees all.
"""

from __future__ import annotations

import hmac
import sqlite3
from collections.abc import Mapping

from sandbox_sdk.auth.records import ClientInfo, KeyInfo, TenantInfo
from sandbox_sdk.auth.rows import (
    SELECT_CLIENT,
    SELECT_KEY,
    Row,
    not_found,
    read_client,
    read_key,
    require_credential,
)
from sandbox_sdk.auth.tables import count_revocation
from sandbox_sdk.errors import ConfigError

LIVE_SECRETS = 2
"""Secrets that a client may have at once: the new one, and the old until all use the new."""

# Any string of a caller's is a parameter; what is put together here are our own words.
_REVOKE: Mapping[str, str] = {
    "key": "UPDATE api_keys SET revoked_at = ? WHERE revoked_at IS NULL AND ",
    "cli": "UPDATE clients SET revoked_at = ? WHERE revoked_at IS NULL AND ",
    "ses": "UPDATE sessions SET revoked_at = ? WHERE revoked_at IS NULL AND ",
}


def insert_tenant(connection: sqlite3.Connection, info: TenantInfo) -> None:
    """Record a new tenant.

    Raises:
        ConfigError: There is one of this name.
    """
    if connection.execute("SELECT 1 FROM tenants WHERE id = ?", (info.id,)).fetchone():
        line = f"tenant: there is one called {info.id!r} already; choose another name"
        raise ConfigError(line, faults=(line,))
    connection.execute(
        "INSERT INTO tenants (id, created_at) VALUES (?, ?)", (info.id, info.created_at)
    )


def ensure_tenant(connection: sqlite3.Connection, info: TenantInfo) -> None:
    """Record a tenant if there is none of this name."""
    connection.execute(
        "INSERT INTO tenants (id, created_at) VALUES (?, ?) ON CONFLICT DO NOTHING",
        (info.id, info.created_at),
    )


def list_tenants(connection: sqlite3.Connection) -> tuple[TenantInfo, ...]:
    """Return all tenants, oldest first."""
    rows = connection.execute(
        "SELECT id, created_at, disabled_at FROM tenants ORDER BY created_at, id"
    )
    return tuple(
        TenantInfo(id=name, created_at=created, disabled_at=disabled)
        for name, created, disabled in rows
    )


def disable_tenant(connection: sqlite3.Connection, id: str, now: float) -> None:
    """Shut a tenant and revoke all that it has; again is nothing.

    Raises:
        CredentialNotFound: There is none.
    """
    _require_tenant(connection, id, open=False)
    connection.execute(
        "UPDATE tenants SET disabled_at = ? WHERE id = ? AND disabled_at IS NULL", (now, id)
    )
    for revoke in _REVOKE.values():
        connection.execute(f"{revoke}tenant = ?", (now, id))
    count_revocation(connection)


def insert_key(connection: sqlite3.Connection, info: KeyInfo, digest: str) -> None:
    """Record a new API key.

    Raises:
        CredentialNotFound: There is no such tenant, or it was shut.
    """
    _require_tenant(connection, info.tenant)
    connection.execute(
        "INSERT INTO api_keys (id, tenant, subject, grants, created_at, expires_at, digest) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (*_values(info), digest),
    )


def find_key(connection: sqlite3.Connection, digest: str) -> KeyInfo | None:
    """Return the API key of a digest, whether or not it is still good."""
    row = connection.execute(f"{SELECT_KEY}WHERE digest = ?", (digest,)).fetchone()
    return None if row is None else read_key(row)


def insert_client(connection: sqlite3.Connection, info: ClientInfo, digest: str) -> None:
    """Record a new client with its first secret.

    Raises:
        CredentialNotFound: There is no such tenant, or it was shut.
    """
    _require_tenant(connection, info.tenant)
    connection.execute(
        "INSERT INTO clients (id, tenant, subject, grants, created_at, expires_at) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        _values(info),
    )
    _insert_secret(connection, info.id, digest, info.created_at)


def add_secret(
    connection: sqlite3.Connection, id: str, digest: str, now: float, tenant: str | None
) -> ClientInfo:
    """Give a client another secret; only the newest before it stays good.

    Raises:
        CredentialNotFound: There is no such client, or it was revoked.
    """
    found = require_credential(connection, id, tenant=tenant)
    if not isinstance(found, ClientInfo) or found.revoked_at is not None:
        raise not_found(id)
    _insert_secret(connection, id, digest, now)
    connection.execute(
        "DELETE FROM client_secrets WHERE client = ? AND digest NOT IN "
        "(SELECT digest FROM client_secrets WHERE client = ? ORDER BY created_at DESC LIMIT ?)",
        (id, id, LIVE_SECRETS),
    )
    return found


def find_client(connection: sqlite3.Connection, id: str, digest: str) -> ClientInfo | None:
    """Return the client with this id and secret, whether or not it is still good.

    It is looked up by the secret alone: an unknown id takes the same way as a wrong secret.
    """
    row = connection.execute(
        f"{SELECT_CLIENT}JOIN client_secrets ON client = id WHERE client_secrets.digest = ?",
        (digest,),
    ).fetchone()
    if row is None or not hmac.compare_digest(str(row[0]).encode(), id.encode()):
        return None
    return read_client(row)


def list_keys(connection: sqlite3.Connection, tenant: str | None) -> tuple[KeyInfo, ...]:
    """Return API keys, oldest first."""
    return tuple(map(read_key, _select(connection, SELECT_KEY, tenant)))


def list_clients(connection: sqlite3.Connection, tenant: str | None) -> tuple[ClientInfo, ...]:
    """Return clients, oldest first."""
    return tuple(map(read_client, _select(connection, SELECT_CLIENT, tenant)))


def revoke(
    connection: sqlite3.Connection,
    id: str,
    now: float,
    *,
    tenant: str | None,
    subject: str | None = None,
) -> None:
    """Revoke an API key with the sessions that it began, a client or a session.

    What was revoked before stays as it is.

    Raises:
        CredentialNotFound: There is none of this id within the tenant, and the subject's if one
            is given.
    """
    require_credential(connection, id, tenant=tenant, subject=subject)
    kind = id.partition("_")[0]
    connection.execute(f"{_REVOKE[kind]}id = ?", (now, id))
    if kind == "key":
        connection.execute(f"{_REVOKE['ses']}api_key = ?", (now, id))
    count_revocation(connection)


def note_use(connection: sqlite3.Connection, info: KeyInfo | ClientInfo, now: float) -> None:
    """Record when a key or client was last used."""
    if isinstance(info, KeyInfo):
        connection.execute("UPDATE api_keys SET used_at = ? WHERE id = ?", (now, info.id))
    else:
        connection.execute("UPDATE clients SET used_at = ? WHERE id = ?", (now, info.id))


def _select(connection: sqlite3.Connection, select: str, tenant: str | None) -> list[Row]:
    order = "ORDER BY created_at, id"
    if tenant is None:
        return connection.execute(select + order).fetchall()
    return connection.execute(f"{select}WHERE tenant = ? {order}", (tenant,)).fetchall()


def _insert_secret(connection: sqlite3.Connection, id: str, digest: str, now: float) -> None:
    connection.execute(
        "INSERT INTO client_secrets (digest, client, created_at) VALUES (?, ?, ?)",
        (digest, id, now),
    )


def _require_tenant(connection: sqlite3.Connection, id: str, *, open: bool = True) -> None:
    row = connection.execute("SELECT disabled_at FROM tenants WHERE id = ?", (id,)).fetchone()
    if row is None or (open and row[0] is not None):
        raise not_found(id)


def _values(info: KeyInfo | ClientInfo) -> tuple[object, ...]:
    return (
        info.id,
        info.tenant,
        info.subject,
        " ".join(info.grants),
        info.created_at,
        info.expires_at,
    )
