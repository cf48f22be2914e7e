"""Connections that stay open end with the credentials that opened them, and are renewed in time."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from secrets import token_hex
from types import SimpleNamespace
from typing import Any

import aiohttp
import anyio
import anyio.abc
import attrs
import pytest
from authorities import Clock, bearer
from served import EVERYTHING, serving_tcp

from sandbox_sdk.auth.authority import Authority
from sandbox_sdk.auth.client import Auth
from sandbox_sdk.auth.exchange import SESSION_GRANT
from sandbox_sdk.auth.principal import Principal
from sandbox_sdk.auth.records import NewKey
from sandbox_sdk.backends.http import Connection, HttpBackend
from sandbox_sdk.backends.protocol import CLOSE_EXPIRED
from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.errors import AuthenticationError
from sandbox_sdk.server.app import Server
from sandbox_sdk.server.passes import Pass
from sandbox_sdk.values import SandboxSpec

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]


@attrs.frozen(kw_only=True)
class Running:
    """A server with one running sandbox, and a clock that its authority goes by."""

    server: Server
    authority: Authority
    clock: Clock
    endpoint: str
    session: aiohttp.ClientSession
    key: NewKey
    sandbox: str

    async def begin(self, **form: str) -> dict[str, Any]:
        """Begin a session, or do what the form asks for."""
        asked = form or {"grant_type": SESSION_GRANT, "api_key": self.key.secret}
        answer = await self.authority.token(list(asked.items()))
        assert answer.status == 200, answer.body
        return dict(answer.body)

    @asynccontextmanager
    async def socket(self, secret: str) -> AsyncGenerator[aiohttp.ClientWebSocketResponse]:
        path = f"/v1/sandboxes/{self.sandbox}/channel?session={token_hex(16)}"
        headers = {"Authorization": bearer(secret)}
        async with self.session.ws_connect(path, headers=headers) as socket:
            assert (await socket.receive_json())["received"] == 0
            yield socket


async def closed(socket: aiohttp.ClientWebSocketResponse) -> float:
    """Wait until the server hangs up for want of credentials; return how long that took."""
    began = time.monotonic()
    while (await socket.receive()).type is not aiohttp.WSMsgType.CLOSE:
        continue
    assert socket.close_code == CLOSE_EXPIRED
    return time.monotonic() - began


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    state = tmp_path / "server"
    await Authority.init(state)
    clock = Clock(time.time())
    authority = await Authority.open(state, clock=clock)
    key = await authority.admin.create_key("local", "ann")
    async with (
        serving_tcp(state, authority, EVERYTHING) as (server, endpoint),
        aiohttp.ClientSession(endpoint) as session,
    ):
        far = HttpBackend(Connection(endpoint, Auth({"api_key": key.secret})))
        made = await far.create(SandboxSpec(name="x", template="host"))
        await far.start(made.id)
        yield Running(
            server=server,
            authority=authority,
            clock=clock,
            endpoint=endpoint,
            session=session,
            key=key,
            sandbox=made.id,
        )
        await far.aclose()
    await authority.aclose()


@pytest.mark.parametrize("what", ["key", "session", "sessions key", "tenant"])
async def test_a_connection_ends_within_a_second_of_a_revocation(
    running: Running, what: str
) -> None:
    begun = await running.begin()
    admin = running.authority.admin
    async with running.socket(running.key.secret if what == "key" else begun["access_token"]) as it:
        if what == "session":
            await admin.revoke(begun["session_id"])
        elif what == "tenant":
            await admin.disable_tenant("local")
        else:
            await admin.revoke(running.key.info.id)
        assert await closed(it) < 1.0
    # Nothing of it goes on: what ran in the line was ended with it.
    tenant = await running.server._tenants.of("local")
    assert not tenant.hub(running.sandbox)._lines


async def test_another_process_may_revoke_it(running: Running, tmp_path: Path) -> None:
    other = await Authority.open(tmp_path / "server")
    async with running.socket(running.key.secret) as it:
        await other.admin.revoke(running.key.info.id)
        assert await closed(it) < 1.0
    await other.aclose()


async def test_a_connection_ends_with_its_token_unless_it_is_renewed(running: Running) -> None:
    running.clock.now = time.time() - 598  # what is given now ends in two seconds
    short, kept = await running.begin(), await running.begin()
    async with running.socket(short["access_token"]) as one:
        running.clock.now = time.time()
        begun = time.monotonic()
        assert await one.receive_json() == {"renew": True}
        assert 0.5 < time.monotonic() - begun < 2.0
        fresh = await running.begin(
            grant_type="refresh_token", refresh_token=short["refresh_token"]
        )
        await one.send_json({"renew": bearer(fresh["access_token"])})
        async with running.socket(kept["access_token"]) as two:
            assert await closed(two) < 3.0  # that of the other, which is not renewed
        await one.send_json({"ask": 1})
        assert (await one.receive_json())["answer"] == 1


async def test_only_the_same_caller_renews_a_connection(running: Running) -> None:
    admin = running.authority.admin
    bob = await admin.create_key("local", "bob")
    reader = await admin.create_key("local", "ann", grants=("reader",))
    for secret in (bob.secret, reader.secret, "nonsense"):
        async with running.socket(running.key.secret) as it:
            await it.send_str(json.dumps({"renew": bearer(secret)}))
            message = await it.receive()
            assert (message.type, it.close_code) == (aiohttp.WSMsgType.CLOSE, 1008)


async def test_a_clients_calls_outlive_its_token(running: Running, tmp_path: Path) -> None:
    """The channel sends newer credentials when the server asks for them."""
    client = await running.authority.admin.create_client("local", "ann")
    running.clock.now = time.time() - 597
    now = 0.0
    form = {"client_id": client.info.id, "client_secret": client.secret}
    auth = Auth(form, monotonic=lambda: now)
    far = HttpBackend(Connection(running.endpoint, auth))
    first = await auth.header()
    async with AsyncSandboxClient(
        form,
        endpoint=running.endpoint,
        config={"security": {"seal_channels": False}},
        state_dir=tmp_path / "client",
    ) as caller:
        sandbox = await caller.get_sandbox(running.sandbox)
        parts = sandbox._parts
        assert parts is not None
        backend = parts.backend
        assert isinstance(backend, HttpBackend)
        backend._connection._auth = auth
        async with sandbox.start_command("echo begun; sleep 4; echo done") as process:
            chunks = aiter(process.stdout)
            assert await anext(chunks) == b"begun\n"
            running.clock.now, now = time.time(), 597.0
            assert await anext(chunks) == b"done\n"
    assert await auth.header() != first
    await far.aclose()


async def test_a_page_of_another_origin_gets_no_connection(running: Running) -> None:
    path = f"/v1/sandboxes/{running.sandbox}/channel?session={'0' * 32}"
    for origin in ("https://elsewhere.example", "null", f"{running.endpoint}0"):
        headers = {"Authorization": bearer(running.key.secret), "Origin": origin}
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await running.session.ws_connect(path, headers=headers)
        assert refused.value.status == 403


async def dribble(stream: anyio.abc.SocketStream, first: bytes) -> None:
    """Send a beginning, and more of it a byte at a time, until the other side hangs up."""
    await stream.send(first)
    while True:
        with anyio.move_on_after(0.1):
            await stream.receive()
        if first:
            await stream.send(b"x")


async def test_who_dribbles_headers_is_dropped(tmp_path: Path) -> None:
    await Authority.init(tmp_path)
    authority = await Authority.open(tmp_path)
    offered = attrs.evolve(EVERYTHING, header_seconds=1.0)
    async with serving_tcp(tmp_path, authority, offered) as (_, endpoint):
        port = int(endpoint.rpartition(":")[2])
        for first in (b"", b"GET /v1/whoami HTTP/1.1\r\nX-Slow: "):
            began = time.monotonic()
            async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                    await dribble(stream, first)
            assert 0.5 < time.monotonic() - began < 5.0
    await authority.aclose()


async def test_a_refused_token_opens_no_connection(running: Running) -> None:
    far = HttpBackend(Connection(running.endpoint, Auth({"token": "v4.public.nonsense"})))
    with pytest.raises(AuthenticationError):
        async with far.connect(running.sandbox):
            raise AssertionError("it was let in")
    await far.aclose()


async def test_who_does_not_read_is_asked_in_vain_and_ends_in_time() -> None:
    ends = time.time() + 0.3
    caller = Principal(tenant="local", subject="ann", method="token", expires_at=ends)
    call: Any = SimpleNamespace(
        principal=caller, authenticator=None, request=SimpleNamespace(remote=None)
    )
    with anyio.fail_after(5):
        assert await Pass(call).over(anyio.sleep_forever) == "expired"
    assert time.time() >= ends
