"""Sessions as rows: begun, listed, and refreshed by tokens of which each is good for one use.

The refresh tokens of a session are a row of places 0, 1, 2, ...; the session's ``place`` is that
of the token that is good now. The one before it gives the same successor for a short time, so
that an answer that was lost on the way can be asked for again. Whoever presents an older one has
a copy: who of the two is the thief cannot be told, so the session ends for both.
"""

from __future__ import annotations

import sqlite3
from typing import Literal

import attrs

from sandbox_sdk.auth.records import SessionInfo
from sandbox_sdk.auth.rows import SELECT_SESSION, read_session
from sandbox_sdk.auth.secret_texts import Kind, Pepper, digest, successor
from sandbox_sdk.auth.tables import count_revocation

REPEAT = 30.0
"""Seconds for which the token before gives the same successor."""

IDLE = 12 * 3600.0
"""Seconds without a refresh after which a session has ended."""

LONGEST = 30 * 86400.0
"""Seconds after which a session has ended whatever it does."""

_KEPT = 86400.0  # seconds for which an ended session is still listed


@attrs.frozen(kw_only=True)
class Refreshed:
    """What became of a refresh token.

    Attributes:
        outcome: ``good``, or why it is not: ``unknown``, ``expired``, ``revoked``, or ``reused``,
            by which the session was revoked.
        session: The session, unless the token is unknown.
        refresh_token: The successor, if it was good.
    """

    outcome: Literal["good", "unknown", "expired", "revoked", "reused"]
    session: SessionInfo | None = None
    refresh_token: str | None = attrs.field(default=None, repr=False)


def insert_session(connection: sqlite3.Connection, info: SessionInfo, refresh_digest: str) -> bool:
    """Record a new session with its first refresh token, and forget those that ended long ago.

    Returns:
        Whether it was recorded: it is not if its key was revoked meanwhile.
    """
    good = "SELECT 1 FROM api_keys WHERE id = ? AND revoked_at IS NULL"
    if connection.execute(good, (info.key,)).fetchone() is None:
        return False
    connection.execute("DELETE FROM sessions WHERE expires_at < ?", (info.created_at - _KEPT,))
    connection.execute(
        "INSERT INTO sessions (id, tenant, subject, grants, created_at, expires_at, used_at, "
        "api_key, place) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0)",
        (
            info.id,
            info.tenant,
            info.subject,
            " ".join(info.grants),
            info.created_at,
            info.expires_at,
            info.created_at,
            info.key,
        ),
    )
    _insert_token(connection, info.id, 0, refresh_digest)
    return True


def list_sessions(
    connection: sqlite3.Connection, *, tenant: str | None, subject: str | None = None
) -> tuple[SessionInfo, ...]:
    """Return sessions, oldest first.

    Args:
        connection: The store's.
        tenant: Only this one's; ``None`` is all.
        subject: Only this one's within the tenant; ``None`` is all.
    """
    wanted = {"tenant": tenant, "subject": subject}
    given = {column: value for column, value in wanted.items() if value is not None}
    where = "WHERE " + " AND ".join(f"{column} = ?" for column in given) if given else ""
    rows = connection.execute(
        f"{SELECT_SESSION}{where} ORDER BY created_at, id", tuple(given.values())
    )
    return tuple(map(read_session, rows))


def refresh(
    connection: sqlite3.Connection, pepper: Pepper, refresh_token: str, now: float
) -> Refreshed:
    """Take a refresh token and return its successor.

    Args:
        connection: The store's.
        pepper: The server's.
        refresh_token: What was presented, well formed.
        now: Seconds since the epoch.
    """
    presented = digest(pepper, Kind.REFRESH_TOKEN, refresh_token)
    row = connection.execute(
        "SELECT session, place, used_at FROM refresh_tokens WHERE digest = ?", (presented,)
    ).fetchone()
    if row is None:
        return Refreshed(outcome="unknown")
    owner, place, used_at = row
    session = read_session(connection.execute(f"{SELECT_SESSION}WHERE id = ?", (owner,)).fetchone())
    if session.revoked_at is not None:
        return Refreshed(outcome="revoked", session=session)
    if session.expires_at <= now or (session.used_at or session.created_at) + IDLE <= now:
        return Refreshed(outcome="expired", session=session)
    (current,) = connection.execute("SELECT place FROM sessions WHERE id = ?", (owner,)).fetchone()
    following = successor(pepper, refresh_token)
    if place == current:
        mark = "UPDATE refresh_tokens SET used_at = ? WHERE digest = ?"
        connection.execute(mark, (now, presented))
        step = "UPDATE sessions SET place = ?, used_at = ? WHERE id = ?"
        connection.execute(step, (place + 1, now, owner))
        kept = digest(pepper, Kind.REFRESH_TOKEN, following)
        _insert_token(connection, owner, place + 1, kept)
    elif place != current - 1 or used_at + REPEAT < now:
        connection.execute("UPDATE sessions SET revoked_at = ? WHERE id = ?", (now, owner))
        count_revocation(connection)
        return Refreshed(outcome="reused", session=session)
    return Refreshed(outcome="good", session=session, refresh_token=following)


def _insert_token(connection: sqlite3.Connection, id: str, place: int, token_digest: str) -> None:
    connection.execute(
        "INSERT INTO refresh_tokens (digest, session, place) VALUES (?, ?, ?)",
        (token_digest, id, place),
    )
