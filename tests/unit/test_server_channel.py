"""The data plane through a server: nothing is lost or done twice when connections are."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import anyio.abc
import pytest
from served import Keys, serving, serving_tcp

from sandbox_sdk import requests
from sandbox_sdk.agent import frames
from sandbox_sdk.auth.client import Auth
from sandbox_sdk.backends.http import Connection, HttpBackend, channel
from sandbox_sdk.backends.protocol import CLOSE_LOST
from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.errors import ProtocolError, SandboxClosed, SandboxEnded, ServerUnavailable
from sandbox_sdk.server import channel as serving_channel
from sandbox_sdk.server.app import Server
from sandbox_sdk.values import MIB, EndKind, SandboxSpec, SandboxState

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(90)]


def asked(argv: list[str]) -> bytes:
    """A command as the agent is asked for it."""
    request = requests.command(argv, cwd=None, env=None)
    return json.dumps({"kind": "command", **request}).encode()


class Wire:
    """A way to a server that can be cut, as a network is."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open: set[anyio.CancelScope] = set()
        self.is_down = False
        self.cuts = 0
        self.passed = 0

    def cut(self) -> None:
        """Break every connection there is."""
        self.cuts += 1
        for scope in list(self._open):
            scope.cancel()

    async def carry(self, near: anyio.abc.SocketStream) -> None:
        """Carry one connection, until either end or a cut."""
        if self.is_down:
            await near.aclose()
            return
        async with near, await anyio.connect_tcp("127.0.0.1", self._port) as far:
            with anyio.CancelScope() as scope:
                self._open.add(scope)
                async with anyio.create_task_group() as group:
                    group.start_soon(self._pump, near, far, scope)
                    group.start_soon(self._pump, far, near, scope)
            self._open.discard(scope)

    async def _pump(
        self,
        source: anyio.abc.SocketStream,
        target: anyio.abc.SocketStream,
        scope: anyio.CancelScope,
    ) -> None:
        try:
            async for data in source:
                await target.send(data)
                self.passed += len(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return
        finally:
            scope.cancel()


@asynccontextmanager
async def wired(tmp_path: Path) -> AsyncGenerator[tuple[Wire, AsyncSandboxClient, Server]]:
    """Give a client whose way to its server can be cut."""
    async with serving_tcp(tmp_path / "state", Keys()) as (server, endpoint):
        wire = Wire(int(endpoint.rpartition(":")[2]))
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, wire.carry)
            async with AsyncSandboxClient(
                {"api_key": "local"},
                endpoint=f"http://127.0.0.1:{port}",
                state_dir=tmp_path / "client",
            ) as client:
                yield wire, client, server
            group.cancel_scope.cancel()


async def test_output_comes_whole_and_once_over_lost_connections(tmp_path: Path) -> None:
    """The program runs once, and each of its lines arrives once."""
    program = "echo run >> runs; i=0; while [ $i -lt 40000 ]; do echo $i; i=$((i+1)); done"
    async with wired(tmp_path) as (wire, client, _):
        sandbox = await client.create_sandbox("x")
        await sandbox.setup()
        lines = bytearray()
        async with sandbox.start_command(program) as process:
            next_cut = 20_000
            async for data in process.stdout:
                lines += data
                if len(lines) > next_cut and wire.cuts < 5:
                    next_cut += 40_000
                    wire.cut()
            ended = await process.wait()
        assert wire.cuts == 5
        assert ended.kind is EndKind.OK
        assert lines.decode().split() == [str(number) for number in range(40_000)]
        assert (await sandbox.run_command("cat runs")).stdout == "run\n"
        await sandbox.cleanup()


async def test_input_arrives_whole_and_once_over_lost_connections(tmp_path: Path) -> None:
    content = b"".join(b"%9d\n" % number for number in range(200_000))

    async def pieces(wire: Wire) -> AsyncIterator[bytes]:
        for at in range(0, len(content), 100_000):
            if at in (300_000, 900_000, 1_500_000):
                wire.cut()
            yield content[at : at + 100_000]

    async with wired(tmp_path) as (wire, client, _):
        sandbox = await client.create_sandbox("x")
        await sandbox.setup()
        await sandbox.files.write_stream("f", pieces(wire))
        assert wire.cuts == 3
        assert await sandbox.files.read("f") == content
        await sandbox.cleanup()


async def test_a_way_that_stays_lost_ends_calls_as_infra_and_the_sandbox_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "AGAIN_SECONDS", 0.3)
    async with wired(tmp_path) as (wire, client, _):
        sandbox = await client.create_sandbox("x")
        async with sandbox.start_command("echo begun; sleep 1000") as process:
            assert await anext(aiter(process.stdout)) == b"begun\n"
            wire.is_down = True
            wire.cut()
            ended = await process.wait()
        assert (ended.kind, ended.safe_to_retry) == (EndKind.INFRA, False)
        assert "connection was lost" in ended.detail
        with pytest.raises(SandboxEnded, match="infra"):
            await sandbox.run_command("true")
        wire.is_down = False
        await sandbox.setup()
        assert (await sandbox.run_command("echo on")).stdout == "on\n"
        await sandbox.cleanup()


async def test_a_session_that_the_server_lost_is_no_other(tmp_path: Path) -> None:
    """A restarted server, or one that waited too long, does not take frames for new ones."""
    async with wired(tmp_path) as (wire, client, server):
        sandbox = await client.create_sandbox("x")
        async with sandbox.start_command("echo begun; sleep 1000") as process:
            assert await anext(aiter(process.stdout)) == b"begun\n"
            hub = (await server._tenants.of("local")).hub(sandbox.id)
            (line,) = hub._lines.values()
            wire.is_down = True
            wire.cut()
            await hub.detach(line)
            wire.is_down = False
            ended = await process.wait()
        assert ended.kind is EndKind.INFRA
        assert "lost the session" in ended.detail
        await client.delete_sandbox(sandbox.id)


async def test_what_a_client_that_left_had_running_ends(tmp_path: Path) -> None:
    async with (
        serving(tmp_path / "state") as (_, endpoint),
        AsyncSandboxClient(endpoint=endpoint, state_dir=tmp_path / "client") as other,
    ):
        async with AsyncSandboxClient(endpoint=endpoint, state_dir=tmp_path / "client") as client:
            sandbox = await client.create_sandbox("x")
            await sandbox.run_code("1", context="kept")
            async with sandbox.start_command("echo begun; exec sleep 1000") as process:
                assert await anext(aiter(process.stdout)) == b"begun\n"
                await client.aclose()
        same = await other.get_sandbox(sandbox.id)
        gone = "until ! grep -qs 'slee[p].1000' /proc/[0-9]*/cmdline; do sleep 0.01; done"
        assert (await same.run_command(gone, timeout=20)).ok
        await same.cleanup()


async def test_a_slow_client_holds_its_own_output_and_nobody_elses(tmp_path: Path) -> None:
    """The server keeps about 1 MiB for it, and goes on with others; then all of it comes."""
    programs, size = 16, MIB
    async with serving(tmp_path / "state") as (server, endpoint):
        far = HttpBackend(Connection(endpoint, Auth()))
        info = await far.create(SandboxSpec(name="x"))
        await far.start(info.id)
        address = f"http://localhost/v1/sandboxes/{info.id}/channel"
        connector = aiohttp.UnixConnector(endpoint.removeprefix("unix://"))
        async with aiohttp.ClientSession(connector=connector) as session:
            slow = await session.ws_connect(address, params={"session": "1" * 32})
            assert (await slow.receive_json()) == {"received": 0, "resumed": False}
            argv = ["head", "-c", str(size), "/dev/zero"]
            body = asked(argv)
            for number in range(programs):
                await slow.send_bytes(frames.encode(frames.OPEN, number, body=body))
            hub = (await server._tenants.of("local")).hub(info.id)
            (line,) = hub._lines.values()
            with anyio.fail_after(20):
                while not line.held:  # noqa: ASYNC110 - nothing tells it
                    await anyio.sleep(0.01)
            plain = {"security": {"seal_channels": False}}
            async with AsyncSandboxClient(
                endpoint=endpoint, state_dir=tmp_path / "b", config=plain
            ) as client:
                other = await client.get_sandbox(info.id)
                assert (await other.run_command("echo quick")).stdout == "quick\n"
                assert line.held
                assert line.kept < programs * (frames.WINDOW + frames.MAX_DATA)
                got = count = over = 0
                while over < programs:
                    message = await slow.receive()
                    if message.type is aiohttp.WSMsgType.TEXT:
                        continue  # what came of our credit
                    frame = frames.decode(message.data)
                    count += 1
                    over += frame.kind == frames.END
                    if frame.kind == frames.DATA:
                        got += len(frame.body)
                        credit = frames.encode_number(len(frame.body))
                        await slow.send_bytes(
                            frames.encode(frames.CREDIT, frame.exchange, frame.stream, credit)
                        )
                    await slow.send_str(json.dumps({"ack": count}))
                assert got == programs * size
                await slow.close()
                await other.cleanup()
        await far.aclose()


@pytest.mark.parametrize(
    "frame",
    [
        frames.encode(frames.GO, 0, body=b"{}"),
        frames.encode(frames.ADOPT, 1),
        frames.encode(frames.RELAY, 1, body=frames.encode(frames.KILL, 1)),
        frames.encode(frames.DETACH, 1),
        b"\0",
    ],
)
async def test_frames_of_the_host_alone_end_the_sandbox_of_the_client_who_sends_them(
    tmp_path: Path, frame: bytes
) -> None:
    async with serving(tmp_path / "state") as (_, endpoint):
        far = HttpBackend(Connection(endpoint, Auth()))
        info = await far.create(SandboxSpec(name="x"))
        await far.start(info.id)
        async with far.connect(info.id) as opened:
            await opened.send(frame)
            with pytest.raises(ConnectionError):
                await opened.receive()
        assert (await far.ended(info.id)).kind is EndKind.SANDBOX_DIED
        with pytest.raises(SandboxClosed):
            async with far.connect(info.id):
                raise AssertionError("a sandbox that ended was connected to")
        await far.aclose()


@pytest.mark.parametrize(
    "said", ['{"ack": 7}', '{"ack": -1}', "{", "[]", '{"ask": "x"}', "9" * 5000]
)
async def test_nonsense_to_the_server_ends_the_connection_only(tmp_path: Path, said: str) -> None:
    async with serving(tmp_path / "state") as (_, endpoint):
        far = HttpBackend(Connection(endpoint, Auth()))
        info = await far.create(SandboxSpec(name="x"))
        await far.start(info.id)
        connector = aiohttp.UnixConnector(endpoint.removeprefix("unix://"))
        async with aiohttp.ClientSession(connector=connector) as session:
            address = f"http://localhost/v1/sandboxes/{info.id}/channel"
            socket = await session.ws_connect(address, params={"session": "2" * 32})
            await socket.receive()
            await socket.send_str(said)
            assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
            assert socket.close_code == 1008
            strange = await session.ws_connect(
                address, params={"session": "3" * 32, "received": "5"}
            )
            assert (await strange.receive()).data == CLOSE_LOST
        async with far.connect(info.id) as opened:
            await far.stop(info.id)
            with pytest.raises(ConnectionError):
                await opened.receive()
        assert (await far.ended(info.id)).kind is EndKind.OK
        await far.aclose()


async def test_more_credit_than_a_window_ends_the_sandbox_of_the_client_who_gives_it(
    tmp_path: Path,
) -> None:
    """Else the agent and the server would have to keep what that client does not read."""
    async with serving(tmp_path / "state") as (_, endpoint):
        far = HttpBackend(Connection(endpoint, Auth()))
        info = await far.create(SandboxSpec(name="x"))
        await far.start(info.id)
        async with far.connect(info.id) as opened:
            await opened.send(frames.encode(frames.OPEN, 1, body=asked(["echo", "on"])))
            while frames.decode(await opened.receive()).kind != frames.END:
                continue
            await opened.send(frames.encode(frames.OPEN, 1, body=asked(["sleep", "1000"])))
            credit = frames.encode_number(1)
            await opened.send(frames.encode(frames.CREDIT, 1, frames.STDOUT, credit))
            with pytest.raises(ConnectionError):
                await opened.receive()
        assert (await far.ended(info.id)).kind is EndKind.SANDBOX_DIED
        await far.aclose()


@pytest.mark.parametrize("hits", ['"x"', "[]", '{"oom_kills": "x"}', '{"oom_kills": {}}'])
async def test_an_answer_that_is_none_breaks_the_protocol(hits: str) -> None:
    async def never(*_: object) -> None:
        raise AssertionError("nothing is to be connected to")

    opened = channel.HttpChannel(never, never)  # type: ignore[arg-type]
    with pytest.raises(ProtocolError, match="no count"):
        await opened._hear(f'{{"answer": 1, "limit_hits": {hits}}}')


async def test_a_connection_that_is_sent_elsewhere_is_none() -> None:
    """Frames and, when they are to be renewed, credentials would go there too."""
    came: list[bytes] = []

    async def elsewhere(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            came.append(await stream.receive())

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as other:
        target = other.extra(anyio.abc.SocketAttribute.local_port)

        async def sending(stream: anyio.abc.SocketStream) -> None:
            async with stream:
                await stream.receive()
                to = f"Location: http://127.0.0.1:{target}/taken"
                await stream.send(f"HTTP/1.1 302 Found\r\n{to}\r\n\r\n".encode())

        async with (
            await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
            anyio.create_task_group() as group,
        ):
            group.start_soon(other.serve, elsewhere)
            group.start_soon(listener.serve, sending)
            port = listener.extra(anyio.abc.SocketAttribute.local_port)
            way = Connection(f"http://127.0.0.1:{port}", Auth({"api_key": "local"}))
            with pytest.raises(ServerUnavailable, match="sends elsewhere"):
                await way.connect("/v1/sandboxes/x/channel", {"session": "2" * 32})
            await way.aclose()
            group.cancel_scope.cancel()
    assert came == []


@pytest.mark.parametrize(
    "said",
    ['{"strange": 1}', "{", '{"ack": 99}', '{"answer": 1, "limit_hits": []}', "9" * 5000],
)
async def test_nonsense_of_a_server_is_no_fault_of_the_sandbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    async def answer(self: Any, message: object) -> bool:
        await self._socket.send_str(said)
        return True

    async with serving(tmp_path / "state") as (_, endpoint):
        far = HttpBackend(Connection(endpoint, Auth()))
        info = await far.create(SandboxSpec(name="x"))
        await far.start(info.id)
        monkeypatch.setattr(serving_channel._Connection, "_hear", answer)
        async with far.connect(info.id) as opened:
            assert isinstance(opened, channel.HttpChannel)
            await opened.ask()
            with pytest.raises(ConnectionError):
                await opened.receive()
        assert (await far.ended(info.id)).kind is EndKind.INFRA
        assert (await far.get(info.id)).state is SandboxState.RUNNING
        await far.delete(info.id)
        await far.aclose()
