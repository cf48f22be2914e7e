"""How keys, clients and sessions are read from their rows, and found by their id."""

from __future__ import annotations

import sqlite3

import attrs

from sandbox_sdk.auth.records import ClientInfo, Credential, KeyInfo, SessionInfo
from sandbox_sdk.errors import CredentialNotFound

SELECT_KEY = (
    "SELECT id, tenant, subject, grants, created_at, expires_at, revoked_at, used_at FROM api_keys "
)
"""What a row of ``read_key`` is read with."""

SELECT_CLIENT = (
    "SELECT id, tenant, subject, grants, clients.created_at, expires_at, revoked_at, used_at "
    "FROM clients "
)
"""What a row of ``read_client`` is read with."""

SELECT_SESSION = (
    "SELECT id, tenant, subject, grants, created_at, expires_at, revoked_at, used_at, api_key "
    "FROM sessions "
)
"""What a row of ``read_session`` is read with."""

Row = tuple[str, str, str, str, float, float | None, float | None, float | None]
"""The columns of ``SELECT_KEY`` and ``SELECT_CLIENT``."""

SessionRow = tuple[str, str, str, str, float, float, float | None, float | None, str]
"""The columns of ``SELECT_SESSION``."""


def read_key(row: Row) -> KeyInfo:
    """Return the API key of a row of ``SELECT_KEY``."""
    own, tenant, subject, grants, created, expires, revoked, used = row
    return KeyInfo(
        id=own,
        tenant=tenant,
        subject=subject,
        grants=tuple(grants.split()),
        created_at=created,
        expires_at=expires,
        revoked_at=revoked,
        used_at=used,
    )


def read_client(row: Row) -> ClientInfo:
    """Return the client of a row of ``SELECT_CLIENT``."""
    return ClientInfo(**attrs.asdict(read_key(row)))


def read_session(row: SessionRow) -> SessionInfo:
    """Return the session of a row of ``SELECT_SESSION``."""
    own, tenant, subject, grants, created, expires, revoked, used, key = row
    return SessionInfo(
        id=own,
        tenant=tenant,
        subject=subject,
        grants=tuple(grants.split()),
        created_at=created,
        expires_at=expires,
        revoked_at=revoked,
        used_at=used,
        key=key,
    )


def require_credential(
    connection: sqlite3.Connection, id: str, *, tenant: str | None, subject: str | None = None
) -> Credential:
    """Return the key, client or session of an id, whether or not it is still good.

    Raises:
        CredentialNotFound: There is none within the tenant, and the subject's if one is given.
    """
    found: Credential | None = None
    by_id = "WHERE id = ?"
    match id.partition("_")[0]:
        case "key":
            row = connection.execute(SELECT_KEY + by_id, (id,)).fetchone()
            found = read_key(row) if row else None
        case "cli":
            row = connection.execute(SELECT_CLIENT + by_id, (id,)).fetchone()
            found = read_client(row) if row else None
        case "ses":
            row = connection.execute(SELECT_SESSION + by_id, (id,)).fetchone()
            found = read_session(row) if row else None
        case _:
            pass
    if found is None or tenant not in (None, found.tenant) or subject not in (None, found.subject):
        raise not_found(id)
    return found


def not_found(id: str) -> CredentialNotFound:
    """Return the error for an id that the caller may not see; the caller raises it."""
    return CredentialNotFound(
        f"there is no tenant, key, client or session {id[:60]!r} here; list those there are"
    )
