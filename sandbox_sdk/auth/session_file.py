"""A session as a file: what processes of one user share, so that all go on with one session."""

from __future__ import annotations

import json
from pathlib import Path

import attrs

from sandbox_sdk.auth.private_files import read_private
from sandbox_sdk.durable import write_durably
from sandbox_sdk.errors import AuthenticationError, ConfigError, StateError
from sandbox_sdk.store.folders import state_error
from sandbox_sdk.wire import from_json, to_json


@attrs.frozen(kw_only=True)
class StoredSession:
    """What the file holds.

    Attributes:
        endpoint: The server that the session is of; its tokens are sent nowhere else.
        session_id: The session's id.
        refresh_token: What gives the next tokens; good for one use.
        access_token: What is sent with calls.
        expires_at: When the access token ends, in seconds since the epoch by the server's clock.
        life: For how many seconds it was good when it was made.
    """

    endpoint: str
    session_id: str
    refresh_token: str = attrs.field(repr=False)
    access_token: str = attrs.field(repr=False)
    expires_at: float
    life: float


def lock_of(path: Path) -> Path:
    """Return the file that is locked while a session is read and written."""
    return path.with_name(f"{path.name}.lock")


def read_session(path: Path) -> StoredSession:
    """Return the session of a file. Blocks on the disk.

    Raises:
        AuthenticationError: There is none.
        StateError: The file cannot be read, is not this user's alone, or holds no session.
    """
    try:
        data = read_private(path)
    except FileNotFoundError:
        raise AuthenticationError(
            f"there is no session at {path}; begin one", reason="missing"
        ) from None
    try:
        return from_json(StoredSession, json.loads(data), lenient=True)
    except (ConfigError, ValueError, RecursionError):
        # Not from the cause, which may show a token.
        raise StateError(f"{path} holds no session, or is damaged; begin a new one") from None


def write_session(path: Path, session: StoredSession) -> None:
    """Write a session, whole or not at all, for its owner alone. Blocks on the disk.

    Raises:
        StateError: It cannot be written.
    """
    try:
        write_durably(path, f"{json.dumps(to_json(session), indent=2)}\n".encode())
    except OSError as error:
        raise state_error(error, f"the session {path} cannot be written") from error
