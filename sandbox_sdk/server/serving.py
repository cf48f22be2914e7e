"""A server from its start to its end: it listens, serves, and lets running calls finish."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import attrs
from aiohttp import web
from anyio.to_thread import run_sync

from sandbox_sdk.config import Settings
from sandbox_sdk.errors import ConfigError
from sandbox_sdk.server.access_log import Discreet
from sandbox_sdk.server.app import Server
from sandbox_sdk.server.principals import Authenticator, Peers
from sandbox_sdk.server.settings import ServerSettings
from sandbox_sdk.server.tenants import Tenants

log = logging.getLogger("sandbox_sdk.server")

_http_log = logging.getLogger("sandbox_sdk.server.http")
_http_log.addFilter(Discreet())

_DRAIN_LOOK_SECONDS = 0.05
_HANG_UP_SECONDS = 2.0
_HEADER_BYTES = 16 * 1024


@attrs.frozen(kw_only=True)
class Listener:
    """One place where a server listens.

    Attributes:
        socket: A socket that listens.
        tls: How TLS is spoken there; ``None`` is not at all.
    """

    socket: socket.socket
    tls: ssl.SSLContext | None = None


@asynccontextmanager
async def serve(
    settings: Settings,
    offered: ServerSettings,
    listeners: Sequence[Listener],
    *,
    peers: Peers | None = None,
    authenticator: Authenticator | None = None,
) -> AsyncGenerator[Server, None]:
    """Serve for as long as the block runs; then ``drain`` it, and end every sandbox.

    Args:
        settings: The server's own settings.
        offered: What it offers.
        listeners: Where it listens; the sockets become its own.
        peers: Who may use a Unix socket; ``None`` is the server's own user and root.
        authenticator: Proves who calls by what they send; TCP needs one.

    Raises:
        ConfigError: It listens at TCP and nothing proves who calls, or the event loop is uvloop.
        StateError: The state folder cannot be used.
    """
    if authenticator is None and any(each.socket.family != socket.AF_UNIX for each in listeners):
        raise ConfigError(
            "the server would listen at a TCP address without a way to tell who calls: run "
            "sandbox-sdk server init first, or use a Unix socket"
        )
    if type(asyncio.get_running_loop()).__module__.startswith("uvloop"):
        raise ConfigError(
            "the process that holds sandboxes does not run on uvloop, which forks where asyncio "
            "does not: run it on asyncio's own loop"
        )
    tenants = await Tenants.open(settings, offered.quota)
    server = Server(tenants, offered, peers=peers or Peers(), authenticator=authenticator)
    runner = web.AppRunner(
        server.app,
        access_log=None,
        logger=_http_log,
        handle_signals=False,
        shutdown_timeout=_HANG_UP_SECONDS,
        max_line_size=_HEADER_BYTES,
        max_field_size=_HEADER_BYTES,
        auto_decompress=False,
        # Until a whole request has come, a connection is idle to aiohttp, however it dribbles.
        keepalive_timeout=offered.header_seconds,
    )
    try:
        await runner.setup()
        for listener in listeners:
            await web.SockSite(runner, listener.socket, ssl_context=listener.tls).start()
        log.info("server.ready", extra={"listeners": len(listeners)})
        yield server
    finally:
        with anyio.CancelScope(shield=True):
            await _drain(server, tenants, offered.drain_seconds)
            await tenants.aclose()
            await run_sync(_remove_files, listeners)
            await runner.cleanup()
            for listener in listeners:
                listener.socket.close()


async def _drain(server: Server, tenants: Tenants, seconds: float) -> None:
    """Start nothing new, and wait for what runs."""
    server.draining = True
    log.info("server.draining", extra={"busy": tenants.busy})
    with anyio.move_on_after(seconds) as patience:
        while tenants.busy:  # noqa: ASYNC110 - what is busy changes in many places
            await anyio.sleep(_DRAIN_LOOK_SECONDS)
    log.info("server.drained", extra={"in_time": not patience.cancelled_caught})


def _remove_files(listeners: Sequence[Listener]) -> None:
    """Remove the files of Unix sockets."""
    for listener in listeners:
        if listener.socket.family == socket.AF_UNIX:
            Path(listener.socket.getsockname()).unlink(missing_ok=True)
