"""``login`` and ``logout``: a session at a server, kept in a file that processes share."""

from __future__ import annotations

import shlex
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING

import anyio
import click
from anyio import to_thread

from sandbox_sdk.cli.running import Session, global_options, run
from sandbox_sdk.errors import ConfigError

if TYPE_CHECKING:
    from sandbox_sdk.auth.client import Auth
    from sandbox_sdk.backends.http import Connection

_FILE = click.argument("file", type=click.Path(dir_okay=False, path_type=Path))


@click.command()
@global_options
@_FILE
def login(file: Path) -> None:
    """Begin a session at the server that is set, with the API key that is set, and keep it in FILE.

    Only you may read the file. Processes that name it go on with the same session.
    """
    run(lambda session: _login(session, file.absolute()))


async def _login(session: Session, file: Path) -> int:
    from sandbox_sdk.auth.client import Auth

    auth = Auth.from_settings(session.settings)
    async with _connected(session, auth):
        id_ = await auth.begin_session(file)
    session.output.document({"session": id_, "file": str(file)})
    session.output.line(f"began the session {id_}; to use it, unset SANDBOX_API_KEY, and")
    session.output.line(f"    export SANDBOX_SESSION={shlex.quote(str(file))}")
    return 0


@click.command()
@global_options
@_FILE
def logout(file: Path) -> None:
    """End the session of FILE, at the server and here."""
    run(lambda session: _logout(session, file))


async def _logout(session: Session, file: Path) -> int:
    from sandbox_sdk.auth.client import Auth
    from sandbox_sdk.auth.session_file import read_session

    stored = await to_thread.run_sync(read_session, file)
    async with _connected(session, Auth({"session": file})) as connection:
        await connection.request(NoneType, "DELETE", f"/v1/sessions/{stored.session_id}")
    await to_thread.run_sync(file.unlink)
    session.output.document({"session": stored.session_id})
    session.output.line(f"ended the session {stored.session_id}")
    return 0


@asynccontextmanager
async def _connected(session: Session, auth: Auth) -> AsyncGenerator[Connection]:
    """Reach the server that is set.

    Raises:
        ConfigError: None is.
    """
    # Imported on use: HTTP costs more than everything else that commands need.
    from sandbox_sdk.backends.http import Connection

    settings = session.settings
    if settings.endpoint is None:
        line = "endpoint: a session is one at a server; set its address"
        raise ConfigError(line, faults=(line,))
    connection = Connection(settings.endpoint, auth, ca_file=settings.tls_ca_file)
    try:
        yield connection
    finally:
        with anyio.CancelScope(shield=True):
            await connection.aclose()
