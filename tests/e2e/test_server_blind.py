"""A server carries what goes in and out of sandboxes, and has none of it in clear.

What is searched: the memory of the server's process, its state folder, its log, and all bytes on
the way to it, which is not TLS here. Left out are its launcher and the agents, which are the other
end, and live workspaces, which are the sandbox's own files.
"""

from __future__ import annotations

import base64
import contextlib
import secrets
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
import attrs
import pytest
from anyio.to_thread import run_sync
from served import process

from sandbox_sdk.client import AsyncSandboxClient

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(240)]

KINDS = ("env", "file", "metadata", "code", "command", "stdin", "output", "value")
"""Where words are planted that the sandbox is to have, and its client."""


def canary() -> str:
    """Return a word that stands nowhere else; base64 writes it the same way wherever it begins."""
    return secrets.token_hex(12)


def unmasked(sent: bytes) -> bytes:
    """Return what a client sent, with the masks of a WebSocket taken off. Source: RFC 6455, 5.2."""
    upgrade = sent.find(b"Upgrade: websocket\r\n")
    if upgrade < 0 or sent.startswith(b"HTTP"):  # a server's frames have no mask
        return sent
    begin = sent.index(b"\r\n\r\n", upgrade) + 4
    found, rest = [sent[:begin]], sent[begin:]
    while len(rest) >= 2:
        length, at = rest[1] & 0x7F, 2
        if length >= 126:
            size = 2 if length == 126 else 8
            length, at = int.from_bytes(rest[2 : 2 + size]), 2 + size
        mask, body = rest[at : at + 4], rest[at + 4 : at + 4 + length]
        pad = (mask * (len(body) // 4 + 1))[: len(body)]
        number = int.from_bytes(body) ^ int.from_bytes(pad)
        found.append(number.to_bytes(len(body)))
        rest = rest[at + 4 + length :]
    return b"".join(found)


@attrs.define
class Relay:
    """Carries connections to a server, and keeps all bytes that pass, each way apart."""

    target: str
    passed: list[bytearray] = attrs.field(factory=list[bytearray])

    @property
    def seen(self) -> bytes:
        """All bytes as whoever listens can read them."""
        return b"".join(unmasked(bytes(each)) for each in self.passed)

    async def carry(self, near: anyio.abc.SocketStream) -> None:
        async with (
            near,
            await anyio.connect_unix(self.target) as far,
            anyio.create_task_group() as group,
        ):
            group.start_soon(self._pump, near, far)
            group.start_soon(self._pump, far, near)

    async def _pump(self, source: anyio.abc.ByteStream, target: anyio.abc.ByteStream) -> None:
        passed = bytearray()
        self.passed.append(passed)
        gone = (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)
        with contextlib.suppress(*gone):
            async for data in source:
                passed += data
                await target.send(data)
        with contextlib.suppress(*gone):
            await target.send_eof()

    @classmethod
    @asynccontextmanager
    async def before(cls, endpoint: str) -> AsyncGenerator[tuple[Relay, str]]:
        """Stand in front of a server."""
        relay = cls(endpoint.removeprefix("unix://"))
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/relay.sock"
            listener = await anyio.create_unix_listener(path)
            async with listener, anyio.create_task_group() as group:
                group.start_soon(listener.serve, relay.carry)
                yield relay, f"unix://{path}"
                group.cancel_scope.cancel()


def memory(pid: int) -> bytes:
    """Return all that a process has in memory and that can be read."""
    found: list[bytes] = []
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    with open(f"/proc/{pid}/mem", "rb") as file:
        for line in maps:
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            try:
                file.seek(start)
                found.append(file.read(end - start))
            except (OSError, OverflowError, ValueError):
                continue  # of the kernel's own, or gone meanwhile
    return b"".join(found)


def state(folder: Path) -> bytes:
    """Return the content of all files of a state folder but those of workspaces."""
    live = {folder / "sandboxes", folder / "ready"}
    paths = (path for path in folder.rglob("*") if not live & set(path.parents))
    return b"".join(path.read_bytes() for path in paths if path.is_file())


def holds(data: bytes, word: str) -> bool:
    """Return whether a word stands somewhere, or its base64 as JSON has it of files."""
    return word.encode() in data or base64.b64encode(word.encode()) in data


def made(word: str) -> str:
    """Return Python code for a word which does not hold it."""
    inverted = bytes(255 - byte for byte in word.encode())
    return f"bytes(255 - each for each in {inverted!r}).decode()"


async def use(client: AsyncSandboxClient, words: dict[str, str]) -> None:
    """Do with a sandbox all that brings words in or out; it still runs afterwards."""
    sandbox = await client.create_sandbox(
        "x",
        env={"WORD": words["env"]},
        files={"file": words["file"]},
        metadata={"word": words["metadata"]},
    )
    await sandbox.setup()
    code = f"print({made(words['output'])} * 2000)\n{made(words['value'])}  # {words['code'] * 100}"
    shown = await sandbox.run_code(code, context="kept")
    assert shown.stdout == words["output"] * 2000 + "\n"
    assert shown.text == repr(words["value"])
    echoed = await sandbox.run_command(
        f"cat file; cat > /dev/null; : {words['command'] * 100}", stdin=words["stdin"] * 2000
    )
    assert echoed.stdout == words["file"]
    found = await sandbox.run_command(["printenv", "WORD"])
    assert found.stdout == words["env"] + "\n"
    ran = await sandbox.run_experiment(
        {
            "model": "mock/script",
            "prompt": words["prompt"],
            "parameters": {"extra_body": {"script": [words["answer"]]}},
        }
    )
    assert ran.status == "success"


async def search(tmp_path: Path, words: dict[str, str], *, seals: bool) -> dict[str, set[str]]:
    """Use a server's sandbox; return word's kind -> the places where the server has it."""
    await anyio.Path(tmp_path).mkdir()
    folder, log = tmp_path / "server", tmp_path / "log"
    config = {"security": {"seal_channels": seals}}
    async with (
        process(folder, log=log) as (running, endpoint),
        Relay.before(endpoint) as (relay, there),
        AsyncSandboxClient(endpoint=there, state_dir=tmp_path / "client", config=config) as client,
    ):
        await use(client, words)
        places = {
            "memory": await run_sync(memory, running.pid),
            "state": await run_sync(state, folder),
            "log": await anyio.Path(log).read_bytes(),
            "wire": await run_sync(lambda: relay.seen),
        }
        assert all(places.values())
        assert len(places["memory"]) > 10_000_000
        return {
            kind: {name for name, data in places.items() if holds(data, word)}
            for kind, word in words.items()
        }


async def test_sealed_a_server_has_no_word_of_it_and_else_it_has_each(tmp_path: Path) -> None:
    outside = ("prompt", "answer")  # which no server is sent at all
    words = {kind: canary() for kind in (*KINDS, *outside)}
    found = await search(tmp_path / "sealed", words, seals=True)
    assert found == {kind: set() for kind in words}
    control = await search(tmp_path / "plain", words, seals=False)
    assert {kind for kind, places in control.items() if "wire" in places} == set(KINDS)
    assert {place for places in control.values() for place in places} == {"memory", "state", "wire"}
    assert not any(control[kind] for kind in outside)
