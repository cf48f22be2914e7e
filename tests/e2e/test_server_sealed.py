"""Sandboxes of a server whose channels are sealed: who is trusted, and what stays with whom."""

from __future__ import annotations

import base64
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import attrs
import pytest
from served import serving, worker_key

from sandbox_sdk.backends.http import HttpBackend, SealedHttpBackend
from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.config import Settings
from sandbox_sdk.crypto_utils import MasterKey, SigningKey, list_keys
from sandbox_sdk.errors import (
    ConfigError,
    FileError,
    IntegrityError,
    KeyNotFound,
    NotPermitted,
    StateError,
)
from sandbox_sdk.server.tenants import Tenant
from sandbox_sdk.values import SandboxInfo, SandboxSpec, SandboxState

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(90)]

SERVER, CLIENT = "server", "client"


def opened(
    tmp_path: Path, endpoint: str, folder: str = CLIENT, **security: object
) -> AsyncSandboxClient:
    return AsyncSandboxClient(
        endpoint=endpoint, state_dir=tmp_path / folder, config={"security": security}
    )


async def test_what_is_for_the_sandbox_alone_comes_in_and_stays_with_the_client(
    tmp_path: Path,
) -> None:
    big = bytes(range(256)) * 4000  # more than the credit of a stream
    variables = {f"V{number}": "\1" * 100_000 for number in range(4)}  # more than a frame
    async with serving(tmp_path / SERVER) as (server, endpoint):
        async with opened(tmp_path, endpoint) as client:
            sandbox = await client.create_sandbox(
                "x",
                env={"PATH": "/usr/bin:/bin:/own", "WORD": "é", **variables},
                files={"a/b": "first", "big": big},
                metadata={"of": "mine"},
            )
            told = await server._tenants._tenants["local"].backend.get(sandbox.id)
            assert (told.spec.env, told.spec.files, told.spec.metadata) == ({}, {}, {})
            shown = await sandbox.run_command("echo $PATH $WORD ${#V3}; cat a/b; wc -c < big")
            assert shown.stdout == f"/usr/bin:/bin:/own é 100000\nfirst{len(big)}\n"
            code = "import os; os.environ['WORD'], len(os.environ['V0'])"
            assert (await sandbox.run_code(code)).text == "('é', 100000)"
            await sandbox.files.write("a/b", "second")
            await sandbox.cleanup()
            await sandbox.setup()
            kept = await sandbox.run_command("echo $WORD; cat a/b")
            assert kept.stdout == "é\nsecond"  # first files are written once
        async with opened(tmp_path, endpoint) as another:
            (found,) = await another.list_sandboxes()
            assert (found.spec.metadata, found.spec.env["WORD"]) == ({"of": "mine"}, "é")
            same = await another.get_sandbox(sandbox.id)
            assert (await same.run_command("echo $WORD")).stdout == "é\n"
            await another.delete_sandbox(sandbox.id)
    assert not [*(tmp_path / CLIENT / "remote").iterdir()]


async def test_what_stays_with_the_client_is_sealed_on_its_disk(tmp_path: Path) -> None:
    words = ("value-of-a-variable", "word-of-mine", "content-of-a-file")
    key = MasterKey.generate().to_text()
    async with serving(tmp_path / SERVER) as (_, endpoint):
        async with opened(tmp_path, endpoint, encryption_key=key) as client:
            sandbox = await client.create_sandbox(
                "x", env={"WORD": words[0]}, metadata={"of": words[1]}, files={"a": words[2]}
            )
            kept = sorted((tmp_path / CLIENT / "remote" / sandbox.id).iterdir())
            assert [file.name for file in kept] == ["files.json", "spec.json"]
            for file in kept:
                text = file.read_bytes()
                for word in words:
                    assert word.encode() not in text
                    assert base64.b64encode(word.encode())[:-4] not in text
            shown = await sandbox.run_command("echo $WORD; cat a")
            assert shown.stdout == f"{words[0]}\n{words[2]}"
        async with opened(tmp_path, endpoint) as another:
            same = await another.get_sandbox(sandbox.id)
            hidden = same.info.spec.env, same.info.spec.metadata
            assert hidden == ({"WORD": "[sealed]"}, {"of": "[sealed]"})
            with pytest.raises(KeyNotFound):
                await same.setup()


async def test_a_deletion_erases_the_keys_of_runs_that_stayed_with_the_client(
    tmp_path: Path,
) -> None:
    key = MasterKey.generate().to_text()
    experiment = {"name": "e", "model": "mock/echo", "prompt": "hello"}
    async with (
        serving(tmp_path / SERVER) as (_, endpoint),
        opened(tmp_path, endpoint, encryption_key=key) as client,
    ):
        sandbox = await client.create_sandbox("x")
        run = (await sandbox.run_experiment(experiment)).id
        assert run in {kept.name for kept in list_keys(tmp_path / CLIENT / "keys")}
        await client.delete_sandbox(sandbox.id)
        assert run not in {kept.name for kept in list_keys(tmp_path / CLIENT / "keys")}


async def test_files_leave_while_it_runs_over_the_channel_alone(tmp_path: Path) -> None:
    async with (
        serving(tmp_path / SERVER) as (_, endpoint),
        opened(tmp_path, endpoint) as client,
    ):
        sandbox = await client.create_sandbox("x", files={"a.txt": "1", "d/b.txt": "1", "c": "2"})
        assert (await sandbox.collect(["*"], tmp_path / "kept")).artifacts == ()
        await sandbox.setup()
        hostile = "ln -s /etc/passwd l.txt; mkfifo p.txt; touch $'n\\xff.txt'; mkdir -m 0 s"
        await sandbox.run_command(f"{hostile}; head -c 3M /dev/zero > big.txt")
        collected = await sandbox.collect(["**/*.txt"], tmp_path / "kept")
        assert {each.path: each.size_bytes for each in collected.artifacts} == {
            "a.txt": 1,
            "d/b.txt": 1,
            "big.txt": 3 * 1024**2,
            "n\\xff.txt": 0,
        }
        assert collected.skipped == {
            "l.txt": "not a regular file",
            "p.txt": "not a regular file",
            "s/": "cannot be opened: Permission denied",
        }
        digests = {each.sha256 for each in collected.artifacts}
        assert digests == {
            path.parent.name + path.name for path in (tmp_path / "kept" / "sha256").glob("*/*")
        }
        backend = sandbox._parts.backend
        content = [data async for data in backend.read_file(sandbox.id, "d/b.txt")]
        assert b"".join(content) == b"1"
        with pytest.raises(FileError, match="No such file"):
            await anext(aiter(backend.read_file(sandbox.id, "none")))
        plain = backend._connection  # type: ignore[attr-defined]
        with pytest.raises(NotPermitted, match="sealed"):
            async with plain.stream("GET", f"/v1/sandboxes/{sandbox.id}/file", query={"path": "c"}):
                raise AssertionError("the server gave a file in clear")
        await sandbox.cleanup()
        with pytest.raises(StateError, match="call setup"):
            await sandbox.collect(["*"], tmp_path / "kept")


async def test_a_worker_is_trusted_at_its_first_sight_and_no_other_after(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path / SERVER) as (_, endpoint):
        async with opened(tmp_path, endpoint) as client:
            await (await client.create_sandbox("x")).setup()
        (said,) = [each.getMessage() for each in caplog.records if "trusted" in each.getMessage()]
        assert "security.worker_key" in said
        known = tmp_path / CLIENT / "known_workers"
        assert known.stat().st_mode & 0o777 == 0o600
        assert known.read_text() == f"{endpoint} {worker_key(tmp_path / SERVER)}\n"
        caplog.clear()
        async with opened(tmp_path, endpoint) as client:
            await (await client.create_sandbox("y")).setup()
        assert not [each for each in caplog.records if "trusted" in each.getMessage()]
        other = SigningKey.generate().public.to_text()
        known.write_text(f"{endpoint} {other}\n")
        async with opened(tmp_path, endpoint) as client:
            with pytest.raises(IntegrityError, match="vouches"):
                await (await client.create_sandbox("z")).setup()
        known.write_text(f"{endpoint} nonsense\n")
        async with opened(tmp_path, endpoint) as client:
            with pytest.raises(ConfigError, match="line 1"):
                await (await client.create_sandbox("z")).setup()
        pins = [other, worker_key(tmp_path / SERVER)]
        async with opened(tmp_path, endpoint, worker_key=pins) as client:
            await (await client.create_sandbox("z")).setup()
        async with opened(tmp_path, endpoint, worker_key=other) as client:
            with pytest.raises(IntegrityError, match="vouches"):
                await (await client.create_sandbox("z")).setup()


async def test_at_high_a_worker_is_pinned_and_nothing_unsealed(tmp_path: Path) -> None:
    async with serving(tmp_path / SERVER) as (_, endpoint):
        async with opened(tmp_path, endpoint) as client:
            await (await client.create_sandbox("x")).setup()  # the worker is known from now on
            with pytest.raises(ConfigError, match="sandbox-sdk server fingerprint") as refused:
                await client.create_sandbox("x", security_level="high")
            assert refused.value.faults[0].startswith("security.worker_key: ")
        async with opened(tmp_path, endpoint, seal_channels=False) as client:
            with pytest.raises(ConfigError, match="always sealed") as refused:
                await client.create_sandbox("x", security_level="high")
            assert refused.value.faults[0].startswith("security.seal_channels: ")


@pytest.mark.parametrize("value", ["", "ssh-ed25519", ["ssh-rsa AAAA"], [], [7], 7, {}])
def test_what_is_no_workers_key_is_told(value: object) -> None:
    with pytest.raises(ConfigError, match=r"security\.worker_key: must be"):
        Settings.load(config={"security": {"worker_key": value}}, environ={})


def test_several_workers_are_a_list_or_have_commas_between_them() -> None:
    keys = [SigningKey.generate().public.to_text() for _ in range(2)]
    listed = Settings.load(config={"security": {"worker_key": keys}}, environ={})
    variable = {"SANDBOX_WORKER_KEY": ",".join(f"{key} name" for key in keys)}
    assert listed.worker_keys == Settings.load(environ=variable, config={}).worker_keys
    assert listed.worker_keys == tuple(keys)


async def test_a_sandbox_opens_for_who_made_it(tmp_path: Path) -> None:
    async with (
        serving(tmp_path / SERVER) as (_, endpoint),
        opened(tmp_path, endpoint) as owner,
        opened(tmp_path, endpoint, "other") as other,
        opened(tmp_path, endpoint, "plain", seal_channels=False) as plain,
    ):
        sandbox = await owner.create_sandbox("x", env={"WORD": "mine"})
        assert (await sandbox.run_command("echo on")).ok
        with pytest.raises(NotPermitted, match=r"keys/client\.key"):
            await (await other.get_sandbox(sandbox.id)).run_command("true")
        with pytest.raises(NotPermitted, match="seal_channels"):
            await (await plain.get_sandbox(sandbox.id)).run_command("true")
        assert (await sandbox.run_command("echo on")).ok  # nobody ended it
        open_to_all = await plain.create_sandbox("y")
        await open_to_all.setup()
        with pytest.raises(NotPermitted, match="not sealed"):
            await (await other.get_sandbox(open_to_all.id)).run_command("true")
        assert (await open_to_all.run_command("echo on")).ok
        shutil.copytree(tmp_path / CLIENT / "keys", tmp_path / "copied" / "keys")
        async with opened(tmp_path, endpoint, "copied") as copied:
            same = await copied.get_sandbox(sandbox.id)
            assert (await same.run_command("echo on")).ok


async def test_a_server_that_adds_an_owner_is_refused_by_a_copy_of_the_key_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it was asked for is known to the client that made it, and not to the copy."""
    get = HttpBackend.get

    async def added(self: HttpBackend, id: str) -> SandboxInfo:
        info = await get(self, id)
        owners = (*info.spec.owners, "0" * 64)
        return attrs.evolve(info, spec=attrs.evolve(info.spec, owners=owners))

    async with (
        serving(tmp_path / SERVER) as (_, endpoint),
        opened(tmp_path, endpoint) as client,
    ):
        sandbox = await client.create_sandbox("x")
        shutil.copytree(tmp_path / CLIENT / "keys", tmp_path / "copied" / "keys")
        async with opened(tmp_path, endpoint, "copied") as copied:
            same = await copied.get_sandbox(sandbox.id)
            monkeypatch.setattr(HttpBackend, "get", added)
            with pytest.raises(IntegrityError, match="1 other keys"):
                await same.setup()


CHANGES: dict[str, Callable[[SandboxSpec], SandboxSpec]] = {
    "security_level": lambda spec: attrs.evolve(spec, security_level="low"),
    "resources": lambda spec: attrs.evolve(
        spec, resources=attrs.evolve(spec.resources, memory_bytes=2**31)
    ),
    "owners": lambda spec: attrs.evolve(spec, owners=(*spec.owners, "0" * 64)),
    "template": lambda spec: attrs.evolve(spec, template="host"),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_a_server_that_records_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    create = Tenant.create

    async def changed(self: Tenant, spec: SandboxSpec, once: Any) -> SandboxInfo:
        return await create(self, CHANGES[name](spec), once)

    async with (
        serving(tmp_path / SERVER) as (_, endpoint),
        opened(tmp_path, endpoint) as client,
    ):
        monkeypatch.setattr(Tenant, "create", changed)
        with pytest.raises(IntegrityError, match=name):
            await client.create_sandbox("x", template="python")
        assert await client.list_sandboxes() == []


async def test_a_server_that_gives_an_old_sandbox_for_a_new_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is done in the new one would be in reach of what runs in the old one."""
    async with (
        serving(tmp_path / SERVER) as (_, endpoint),
        opened(tmp_path, endpoint) as client,
    ):
        old = await client.create_sandbox("x", template="python")

        async def same(self: Tenant, spec: SandboxSpec, once: Any) -> SandboxInfo:
            return await self.backend.get(old.id)

        monkeypatch.setattr(Tenant, "create", same)
        with pytest.raises(IntegrityError, match="has already"):
            await client.create_sandbox("x", template="python")
        assert [found.id for found in await client.list_sandboxes()] == [old.id]


@pytest.mark.parametrize("name", CHANGES)
async def test_a_server_that_starts_something_else_and_hides_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """What answers is as it was asked for; what runs, and what its worker signs, is not."""
    create = Tenant.create

    async def changed(self: Tenant, spec: SandboxSpec, once: Any) -> SandboxInfo:
        made = await create(self, CHANGES[name](spec), once)
        return attrs.evolve(made, spec=spec)

    async with (
        serving(tmp_path / SERVER) as (_, endpoint),
        opened(tmp_path, endpoint) as client,
    ):
        monkeypatch.setattr(Tenant, "create", changed)
        sandbox = await client.create_sandbox("x", template="python")
        with pytest.raises(IntegrityError, match="vouches for another"):
            await sandbox.setup()
        await client.delete_sandbox(sandbox.id)


async def test_what_is_changed_on_the_way_ends_the_call_as_infra_and_the_sandbox_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    async with (
        serving(tmp_path / SERVER) as (server, endpoint),
        opened(tmp_path, endpoint) as client,
    ):
        sandbox = await client.create_sandbox("x")
        await sandbox.setup()
        backend = sandbox._parts.backend
        assert isinstance(backend, SealedHttpBackend)
        async with sandbox.start_command("echo begun; sleep 1000") as program:
            assert await anext(aiter(program.stdout)) == b"begun\n"
            hub = server._tenants._tenants["local"].hub(sandbox.id)
            (line,) = hub._lines.values()
            line.keep(b"\x15\0\0\0\0\0\0\0\0\x20" + bytes(32))  # a frame of sealed bytes
            ended = await program.wait()
        assert ended.kind == "infra"
        assert "changed" in ended.detail
        await sandbox.setup()
        assert (await sandbox.run_command("echo on")).stdout == "on\n"
        assert (await client.list_sandboxes())[0].state is SandboxState.RUNNING


async def test_clients_that_share_a_state_folder_meet_a_worker_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path / SERVER) as (_, endpoint):
        clients = [opened(tmp_path, endpoint) for _ in range(4)]

        async def use(client: AsyncSandboxClient) -> None:
            async with client, await client.create_sandbox("x") as sandbox:
                assert (await sandbox.run_command("true")).ok

        async with anyio.create_task_group() as group:
            for client in clients:
                group.start_soon(use, client)
    lines = (tmp_path / CLIENT / "known_workers").read_text().splitlines()
    assert len(lines) == 1


async def test_what_is_no_frame_ends_the_connection_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        serving(tmp_path / SERVER) as (_, endpoint),
        opened(tmp_path, endpoint) as client,
        aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(endpoint.removeprefix("unix://"))
        ) as session,
    ):
        sandbox = await client.create_sandbox("x")
        await sandbox.setup()
        address = f"http://localhost/v1/sandboxes/{sandbox.id}/channel"
        socket = await session.ws_connect(address, params={"session": "2" * 32})
        await socket.receive()
        await socket.send_bytes(b"\0")
        assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
        assert socket.close_code == aiohttp.WSCloseCode.POLICY_VIOLATION
        assert (await sandbox.run_command("echo on")).stdout == "on\n"
        assert not [record for record in caplog.records if record.exc_info]
