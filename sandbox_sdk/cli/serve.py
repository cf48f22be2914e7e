"""``serve``: this machine's sandboxes for clients elsewhere, or in other processes."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import attrs
import click

from sandbox_sdk.cli.running import Session, global_options, run
from sandbox_sdk.cli.server import SOCKET
from sandbox_sdk.errors import ConfigError
from sandbox_sdk.store.folders import StateFolders

if TYPE_CHECKING:
    import ssl

    from sandbox_sdk.auth.authority import Authority
    from sandbox_sdk.server.serving import Listener
    from sandbox_sdk.server.settings import Allowed, ServerSettings

_PROXY_SECONDS = 90.0
_FILE = click.Path(dir_okay=False, exists=True, path_type=Path)


@attrs.frozen(kw_only=True)
class _Wish:
    """What the command line asks for."""

    socket: Path | None
    host: str | None
    port: int
    tls_cert: Path | None
    tls_key: Path | None
    behind_proxy: bool
    allow: tuple[Allowed, ...]
    max_running: int
    max_sandboxes: int
    idle_timeout: float
    drain_seconds: float


@click.command()
@global_options
@click.option(
    "--socket", type=click.Path(dir_okay=False, path_type=Path), help="Listen at this Unix socket."
)
@click.option("--host", help="Listen at this IP address; without TLS it must be loopback.")
@click.option("--port", type=click.IntRange(0, 65535), default=8443, show_default=True)
@click.option("--tls-cert", type=_FILE, help="Speak TLS with this certificate chain (PEM).")
@click.option("--tls-key", type=_FILE, help="Its private key; SIGHUP reads both anew.")
@click.option("--behind-proxy", is_flag=True, help="A proxy in front of --host speaks TLS.")
@click.option(
    "--allow",
    multiple=True,
    type=click.Choice(["low", "unsafe", "waivers", "host-template"]),
    help="Offer what is refused otherwise; may be given more than once.",
)
@click.option(
    "--max-running", type=click.IntRange(1), default=256, show_default=True, help="Per tenant."
)
@click.option(
    "--max-sandboxes", type=click.IntRange(1), default=10_000, show_default=True, help="Per tenant."
)
@click.option(
    "--idle-timeout",
    type=click.FloatRange(0, min_open=True),
    default=600.0,
    show_default=True,
    help="Seconds without a call of a sandbox that asks for none.",
)
@click.option(
    "--drain-seconds",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    help="Longest wait for running calls at SIGTERM.",
)
# Any: click passes each option by its name.
def serve(**options: Any) -> None:
    """Serve this machine's sandboxes at a Unix socket of your own, or over TCP."""
    run(lambda session: _serve(session, _Wish(**options)))


async def _serve(session: Session, wish: _Wish) -> int:
    # Imported on use: HTTP costs more than everything else that commands need.
    from sandbox_sdk.server import serving, sockets

    _log_json()
    if wish.host is None and (wish.behind_proxy or (wish.tls_cert and wish.tls_key)):
        raise ConfigError(
            "--behind-proxy and --tls-cert are about --host, which is not given: at a Unix socket "
            "whoever a proxy of the server's user lets through would be the tenant local"
        )
    tls = None
    if wish.tls_cert is not None and wish.tls_key is not None:
        tls = sockets.tls_context(wish.tls_cert, wish.tls_key)
    elif wish.tls_cert is not None or wish.tls_key is not None:
        raise ConfigError("--tls-cert and --tls-key go together: give both, or neither")
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with (
            _authority(session) as authority,
            _listening(session, wish, tls) as listeners,
            serving.serve(session.settings, _offered(wish), listeners, authenticator=authority),
        ):
            where = [_endpoint(each) for each in listeners]
            session.output.document({"ready": where})
            for endpoint in where:
                session.output.line(f"ready at {endpoint}")
            sys.stdout.flush()
            async for number in signals:
                if number != signal.SIGHUP:
                    break
                if tls is not None and wish.tls_cert is not None and wish.tls_key is not None:
                    _reload(tls, wish.tls_cert, wish.tls_key)
    return 0


@asynccontextmanager
async def _authority(session: Session) -> AsyncGenerator[Authority | None]:
    """Open what tells who calls by what they send; ``None`` before ``server init``.

    Raises:
        StateError: It is damaged, or others may read its secrets.
    """
    from sandbox_sdk.auth.authority import Authority

    authority = await Authority.find(session.settings.state_dir)
    try:
        yield authority
    finally:
        if authority is not None:
            with anyio.CancelScope(shield=True):
                await authority.aclose()


@asynccontextmanager
async def _listening(
    session: Session, wish: _Wish, tls: ssl.SSLContext | None
) -> AsyncGenerator[list[Listener]]:
    """Give the sockets to serve at; whatever happens, none stays open."""
    listeners = await _listen(session, wish, tls)
    try:
        yield listeners
    finally:
        for listener in listeners:
            listener.socket.close()


async def _listen(session: Session, wish: _Wish, tls: ssl.SSLContext | None) -> list[Listener]:
    from sandbox_sdk.server import serving, sockets

    listeners: list[serving.Listener] = []
    if wish.host is not None:
        is_protected = tls is not None or wish.behind_proxy
        tcp = sockets.listen_tcp(wish.host, wish.port, is_protected=is_protected)
        listeners.append(serving.Listener(socket=tcp, tls=tls))
    if wish.socket is not None or wish.host is None:
        path = wish.socket
        if path is None:
            state_dir = session.settings.state_dir
            folders = await anyio.to_thread.run_sync(StateFolders.open, state_dir)
            path = folders.root / SOCKET
        unix = await anyio.to_thread.run_sync(sockets.listen_unix, path)
        listeners.append(serving.Listener(socket=unix))
    return listeners


def _offered(wish: _Wish) -> ServerSettings:
    from sandbox_sdk.server.settings import HEADER_SECONDS, Quota, ServerSettings

    return ServerSettings(
        allow=frozenset(wish.allow),
        quota=Quota(sandboxes=wish.max_sandboxes, running=wish.max_running),
        idle_timeout=wish.idle_timeout,
        drain_seconds=wish.drain_seconds,
        # Proxies wait for headers themselves, and keep idle connections for about a minute.
        header_seconds=_PROXY_SECONDS if wish.behind_proxy else HEADER_SECONDS,
    )


def _endpoint(listener: Listener) -> str:
    name = listener.socket.getsockname()
    if isinstance(name, str):
        return f"unix://{name}"
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"{'https' if listener.tls else 'http'}://{host}:{name[1]}"


def _reload(tls: ssl.SSLContext, certificate: Path, key: Path) -> None:
    from sandbox_sdk.server import sockets

    log = logging.getLogger("sandbox_sdk.server")
    try:
        sockets.reload_tls(tls, certificate, key)
    except ConfigError as error:
        log.warning("server.certificate_kept", extra={"reason": error.message})
    else:
        log.info("server.certificate_reloaded")


def _log_json() -> None:
    """Write what the SDK logs to standard error, a line of JSON each."""
    from sandbox_sdk.server.access_log import JsonFormatter

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    ours = logging.getLogger("sandbox_sdk")
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
