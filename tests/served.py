"""Servers for tests: one in this process, whose parts are at hand, or a real one beside it."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
from anyio.to_thread import run_sync
from certificates import Certificates

from sandbox_sdk.auth import principal
from sandbox_sdk.auth.grants import TokenAnswer
from sandbox_sdk.auth.records import SessionInfo
from sandbox_sdk.config import Settings
from sandbox_sdk.crypto_utils.identities import WORKER, identity
from sandbox_sdk.errors import AuthenticationError, CredentialNotFound
from sandbox_sdk.server.app import Server
from sandbox_sdk.server.calls import READ
from sandbox_sdk.server.principals import Authenticator, Peers
from sandbox_sdk.server.serving import Listener, serve
from sandbox_sdk.server.settings import ServerSettings
from sandbox_sdk.server.sockets import listen_tcp, listen_unix

ALLOW = ("low", "waivers", "host-template")
"""What is offered to a contract's clients: all that sandboxes of this machine are."""

EVERYTHING = ServerSettings(allow=frozenset(ALLOW), drain_seconds=0.5)  # type: ignore[arg-type]

Open = Callable[[Path, dict[str, object]], AbstractAsyncContextManager[Any]]


class Keys:
    """Knows callers by their keys: ``Bearer TENANT`` may do all, ``Bearer TENANT-reader`` read."""

    async def authenticate(self, authorization: str, *, peer: str = "") -> principal.Principal:
        tenant, _, role = authorization.removeprefix("Bearer ").partition("-")
        if not tenant or tenant == "nobody":
            raise AuthenticationError("no such key")
        scopes = frozenset({READ}) if role == "reader" else frozenset({principal.EVERYTHING})
        return principal.Principal(
            tenant=tenant, subject=role or "admin", method="api_key", scopes=scopes
        )

    async def token(
        self,
        form: Iterable[tuple[str, str]],
        *,
        authorization: str | None = None,
        peer: str = "",
    ) -> TokenAnswer:
        return TokenAnswer(status=400, body={"error": "unsupported_grant_type"}, headers={})

    async def sessions(self, principal: principal.Principal) -> tuple[SessionInfo, ...]:
        return ()

    async def revoke_session(self, principal: principal.Principal, id: str) -> None:
        raise CredentialNotFound("no such session")

    async def wait_revoked(self, principal: principal.Principal) -> None:
        await anyio.sleep_forever()

    async def has_tenants(self) -> bool:
        return False


@asynccontextmanager
async def serving(
    state_dir: Path,
    offered: ServerSettings = EVERYTHING,
    *,
    peers: Peers | None = None,
    authenticator: Authenticator | None = None,
) -> AsyncGenerator[tuple[Server, str]]:
    """Serve on a Unix socket in this process; give the server and its endpoint."""
    # Short: the kernel takes no longer path of a socket than 107 bytes.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "server.sock"
        listener = Listener(socket=listen_unix(path))
        settings = Settings.load(state_dir=state_dir, config={})
        async with serve(
            settings, offered, [listener], peers=peers, authenticator=authenticator
        ) as server:
            yield server, f"unix://{path}"


@asynccontextmanager
async def serving_tcp(
    state_dir: Path, authenticator: Authenticator, offered: ServerSettings = EVERYTHING
) -> AsyncGenerator[tuple[Server, str]]:
    """Serve on loopback in this process; give the server and its endpoint."""
    listening = listen_tcp("127.0.0.1", 0, is_protected=False)
    port = listening.getsockname()[1]
    settings = Settings.load(state_dir=state_dir, config={})
    async with serve(
        settings, offered, [Listener(socket=listening)], authenticator=authenticator
    ) as server:
        yield server, f"http://127.0.0.1:{port}"


@asynccontextmanager
async def process(
    state_dir: Path, *options: str, pool_size: int = 0, log: Path | None = None
) -> AsyncGenerator[tuple[anyio.abc.Process, str]]:
    """Start ``sandbox-sdk serve``; give its process and the endpoint of its Unix socket."""
    async with program(state_dir, *options, pool_size=pool_size, log=log) as (running, endpoints):
        yield running, endpoints[-1]


@asynccontextmanager
async def program(
    state_dir: Path, *options: str, pool_size: int = 0, log: Path | None = None
) -> AsyncGenerator[tuple[anyio.abc.Process, list[str]]]:
    """Start ``sandbox-sdk serve``; give its process and its endpoints, a Unix socket the last."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "server.sock"
        words = ["-m", "sandbox_sdk", "serve", "--state-dir", str(state_dir)]
        words += ["--socket", str(path), "--drain-seconds", "0.5", *options]
        lines = 1 + ("--host" in options)
        place = log or Path(folder) / "log"
        async with _started(words, place, pool_size, lines=lines) as (running, said):
            yield running, [line.split()[-1] for line in said.splitlines()]


@asynccontextmanager
async def tls_process(
    state_dir: Path, certificates: Certificates, *, pool_size: int = 0, log: Path | None = None
) -> AsyncGenerator[tuple[anyio.abc.Process, str]]:
    """Start a server that speaks TLS; give its process and its endpoint."""
    words = [str(Path(__file__).with_name("tls_server.py")), str(state_dir)]
    words += [str(certificates.chain), str(certificates.key)]
    with tempfile.TemporaryDirectory() as folder:
        async with _started(words, log or Path(folder) / "log", pool_size) as (running, said):
            yield running, said.strip()


@asynccontextmanager
async def _started(
    words: list[str], log: Path, pool_size: int, *, lines: int = 1
) -> AsyncGenerator[tuple[anyio.abc.Process, str]]:
    """Start a server and wait for the lines by which it says that it is ready."""
    environment = {**os.environ, "SANDBOX_ORCHESTRATOR_POOL_SIZE": str(pool_size)}
    with log.open("wb") as stderr:
        running = await anyio.open_process([sys.executable, *words], stderr=stderr, env=environment)
    async with running:
        assert running.stdout is not None
        said = b""
        while said.count(b"\n") < lines:
            try:
                said += await running.stdout.receive()
            except anyio.EndOfStream:
                raise AssertionError(await anyio.Path(log).read_text()) from None
        try:
            yield running, said.decode()
        finally:
            if running.returncode is None:
                running.send_signal(signal.SIGTERM)


def worker_key(state_dir: Path) -> str:
    """Return the public key of a server's worker, as its operator would print it."""
    return identity(state_dir / "keys", WORKER).public.to_text()


def far(open_client: Open, *, tls: bool = False, seals: bool = True) -> Open:
    """Return what opens a client of a server of its own, instead of one of this machine.

    Args:
        open_client: Opens a client with settings.
        tls: Whether the way there is TLS, instead of a Unix socket.
        seals: Whether channels are sealed.
    """

    @asynccontextmanager
    async def open_far(state_dir: Path, settings: dict[str, Any]) -> AsyncGenerator[Any]:
        server = state_dir / "server"
        await run_sync(lambda: server.mkdir(parents=True, mode=0o700))
        more: dict[str, Any] = {}
        async with AsyncExitStack() as stack:
            if tls:
                certificates = await run_sync(Certificates.make, state_dir / "certificates")
                started = tls_process(server, certificates)
                more = {"tls": {"ca_file": str(certificates.ca)}, "api_key": "local"}
            else:
                started = process(server, *(word for each in ALLOW for word in ("--allow", each)))
            _, endpoint = await stack.enter_async_context(started)
            sealing = {"worker_key": worker_key(server)} if seals else {"seal_channels": False}
            security = {**settings["security"], **sealing}
            client = open_client(
                state_dir / "client",
                {**settings, **more, "security": security, "endpoint": endpoint},
            )
            yield await stack.enter_async_context(client)

    return open_far
