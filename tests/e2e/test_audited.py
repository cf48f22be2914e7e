"""What a client records of its calls, and that no sandbox reaches where."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from click.testing import CliRunner, Result

from sandbox_sdk.audit.events import Line
from sandbox_sdk.audit.segments import segment_paths
from sandbox_sdk.cli.app import app
from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.errors import FileError, StateError
from sandbox_sdk.store.base import Once

# A loaded machine takes its time over what is as many processes as this.
pytestmark = [pytest.mark.anyio, pytest.mark.timeout(90)]

CANARY = "canary-5f1e"
Opening = Callable[..., AbstractAsyncContextManager[AsyncSandboxClient]]


@pytest.fixture
def opening(tmp_path: Path) -> Opening:
    """Open a client over the test's own state folder."""

    @asynccontextmanager
    async def opened(
        enabled: bool | None = True, **more: Any
    ) -> AsyncGenerator[AsyncSandboxClient]:
        security = {} if enabled is None else {"enable_audit_logs": enabled}
        config = {"security": {**security, **more}}
        async with AsyncSandboxClient(state_dir=tmp_path, config=config) as client:
            yield client

    return opened


def recorded(state: Path) -> list[Line]:
    return [
        Line.parse(raw)
        for path in segment_paths(state / "audit")
        for raw in path.read_bytes().splitlines(keepends=True)
    ]


def types(state: Path) -> list[str]:
    """The types of events, without those of the log itself."""
    found = [line.type.removeprefix("sandbox-sdk.") for line in recorded(state)]
    return [one for one in found if not one.startswith("audit.")]


async def verify(state: Path) -> tuple[int, str]:
    """The exit code and output of the command, in a process of its own."""
    words = [sys.executable, "-m", "sandbox_sdk", "--state-dir", str(state), "audit", "verify"]
    done = await anyio.run_process(words, check=False, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout.decode()


def both(*calls: str) -> list[str]:
    return [f"{call}.{when}" for call in calls for when in ("began", "ended")]


async def test_every_call_is_recorded_and_the_log_verifies(
    opening: Opening, tmp_path: Path
) -> None:
    async with opening() as client:
        sandbox = await client.create_sandbox("one", env={"A": CANARY}, files={"a": CANARY})
        async with sandbox:
            await sandbox.run_command(["echo", CANARY])
            await sandbox.run_code(f"x = '{CANARY}'", context="kept")
            await sandbox.run_code("1/0")
            await sandbox.run_code(f"echo {CANARY}", language="bash")
            await sandbox.files.write("b", CANARY)
            await sandbox.files.make_dir("d")
            await sandbox.files.move("b", "c")
            await sandbox.files.remove("c")
            with pytest.raises(FileError):
                await sandbox.files.remove("c")
            async with sandbox.start_command(["cat"]) as process:
                await process.write(CANARY)
            assert (await sandbox.run_command("sleep 9", timeout=0.1)).ended.limit == "timeout"
            await sandbox.files.read("a")
        # The sandbox's end is durable when cleanup() returns.
        assert types(tmp_path)[-1] == "sandbox.stop.ended"
        await client.delete_sandbox(sandbox.id)
        assert types(tmp_path)[-1] == "sandbox.delete.ended"
    assert types(tmp_path) == [
        *both("sandbox.create", "sandbox.start", "command", "code", "code", "command"),
        *both("file.write", "file.make_dir", "file.move", "file.remove", "file.remove"),
        *both("command", "command"),
        "sandbox.stop.began",
        "sandbox.ended",
        "sandbox.stop.ended",
        *both("sandbox.delete"),
    ]
    found = recorded(tmp_path)
    began = [line for line in found if line.type.endswith(".began")]
    assert {line.data["actor"]["uid"] for line in began} == {os.geteuid()}
    assert {line.data["actor"]["pid"] for line in began} == {os.getpid()}
    for line in began:
        (end,) = [each for each in found if each.data.get("call") == line.data["call"]][1:]
        assert end.type == line.type.replace("began", "ended")
        assert end.subject == sandbox.id
    inside = ("sandbox-sdk.command.ended", "sandbox-sdk.code.ended")
    ends = [line.data["outcome"] for line in found if line.type in inside]
    assert ends == ["ok", "ok", "nonzero", "ok", "cancelled", "timeout"]
    raw = b"".join(path.read_bytes() for path in (tmp_path / "audit").iterdir())
    assert CANARY.encode() not in raw

    code, output = await verify(tmp_path)
    assert (code, output[:9]) == (0, "verified:")
    newest = segment_paths(tmp_path / "audit")[-1]
    newest.write_bytes(newest.read_bytes().replace(b'"nonzero"', b'"success"'))
    code, output = await verify(tmp_path)
    assert code == 1
    wrong = re.search(r"line (\d+) \(0+1\.jsonl:(\d+)\) is not what line", output)
    assert wrong is not None
    assert found[int(wrong[1]) - 1].data["outcome"] == "nonzero"


async def test_a_sandbox_that_is_deleted_under_its_command_is_recorded(
    opening: Opening, tmp_path: Path
) -> None:
    async with opening() as client:
        sandbox = await client.create_sandbox("one")
        async with sandbox.start_command("sleep 9"):
            await client.delete_sandbox(sandbox.id)
    (end,) = [line for line in recorded(tmp_path) if line.type == "sandbox-sdk.command.ended"]
    assert end.data["outcome"] == "cancelled"


async def test_at_high_paths_are_recorded_as_digests(opening: Opening, tmp_path: Path) -> None:
    async with opening(None) as client:
        sandbox = await client.create_sandbox("one", security_level="high")
        await sandbox.files.write("name", b"")
    (line,) = [line for line in recorded(tmp_path) if line.type == "sandbox-sdk.file.write.began"]
    assert line.data["path"] == f"sha256:{hashlib.sha256(b'name').hexdigest()}"


async def test_without_a_setting_only_high_is_recorded(opening: Opening, tmp_path: Path) -> None:
    async with opening(None) as client:
        async with await client.create_sandbox("medium") as sandbox:
            await sandbox.run_command("true")
        assert not (tmp_path / "audit").exists()
        high = await client.create_sandbox("high", security_level="high")
        await client.delete_sandbox(high.id)
        await client.delete_sandbox(sandbox.id)
    assert types(tmp_path) == [*both("sandbox.create", "sandbox.delete")]
    assert {line.subject for line in recorded(tmp_path)} <= {"", high.id}


async def test_nothing_is_recorded_where_that_is_said(opening: Opening, tmp_path: Path) -> None:
    async with opening(False) as client:
        await client.create_sandbox("high", security_level="high")
    assert not (tmp_path / "audit").exists()


async def test_a_setting_that_is_a_secret_stands_in_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"security": {"enable_audit_logs": True}}
    with pytest.warns(UserWarning, match="not needed"):
        client = AsyncSandboxClient({"api_key": CANARY}, state_dir=tmp_path, config=config)
    async with client:
        await client.create_sandbox(f"named {CANARY}")
    assert "named [redacted]" in {line.data.get("name") for line in recorded(tmp_path)}


async def test_code_inside_reaches_no_file_of_the_log(opening: Opening, tmp_path: Path) -> None:
    """Neither by its path nor in any folder that is seen; the control outside finds it."""
    name = "0" * 19 + "1.jsonl"
    look = f"import os; print([f for f, _, n in os.walk('/') if {name!r} in n])"
    async with opening() as client, await client.create_sandbox("curious") as sandbox:
        log = tmp_path / "audit" / name
        assert log.exists()
        before = log.read_bytes()
        tried = await sandbox.run_command(
            f"cat {log} || ls {log.parent} || echo x >> {log} || rm -f {log.parent}/* || echo no"
        )
        assert tried.stdout in ("", "no\n")
        assert "specversion" not in tried.stdout
        assert (await sandbox.run_code(look)).stdout == "[]\n"
        assert log.read_bytes().startswith(before)
    assert (await verify(tmp_path))[0] == 0


async def test_two_clients_record_into_one_log(opening: Opening, tmp_path: Path) -> None:
    async def work(client: AsyncSandboxClient) -> None:
        for number in range(5):
            sandbox = await client.create_sandbox(str(number))
            await client.delete_sandbox(sandbox.id)

    async with opening() as one, opening() as two, anyio.create_task_group() as group:
        group.start_soon(work, one)
        group.start_soon(work, two)
    assert len(types(tmp_path)) == 40
    assert (await verify(tmp_path))[0] == 0


def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the log's disk be full from now on."""

    def fail(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", fail)


async def test_at_high_nothing_begins_unrecorded(
    opening: Opening, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opening(None) as client:
        waiting = await client.create_sandbox("waiting", security_level="high")
        async with await client.create_sandbox("running", security_level="high") as running:
            with monkeypatch.context() as patch:
                full(patch)
                with pytest.raises(StateError, match="No space left"):
                    await client.create_sandbox("new", security_level="high")
                assert {info.name for info in await client.list_sandboxes()} == {
                    "waiting",
                    "running",
                }
                with pytest.raises(StateError, match="cannot be recorded"):
                    await waiting.setup()
                with pytest.raises(StateError, match="cannot be recorded"):
                    await running.run_command("touch done")
                with pytest.raises(StateError, match="cannot be recorded"):
                    await running.files.write("done", b"")
                # Other levels go on, and ends always do.
                async with await client.create_sandbox("medium") as medium:
                    assert (await medium.run_command("true")).ok
                with pytest.warns(UserWarning, match="NOT recorded for now"):
                    await client.delete_sandbox(waiting.id)
            with anyio.fail_after(10):
                while True:
                    try:
                        assert not await running.files.exists("done")
                        await running.run_command("true")
                        break
                    except StateError:
                        await anyio.sleep(0.05)
    assert (await verify(tmp_path))[0] == 0
    assert "sandbox.delete.ended" in types(tmp_path)


async def test_a_request_that_comes_again_undoes_nothing_of_the_first(
    opening: Opening, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = Once(scope="mine", key="k", digest=b"d")
    async with opening(None) as client:
        made = (await client.create_sandbox("first", security_level="high")).info
        parts = client._opened  # pyright: ignore[reportPrivateUsage]
        assert parts is not None
        first = await parts.backend.create(made.spec, once)
        with monkeypatch.context() as patch:
            full(patch)
            with pytest.raises(StateError, match="No space left"):
                await parts.backend.create(made.spec, once)
            assert (await parts.backend.get(first.id)).id == first.id


async def use(client: AsyncSandboxClient) -> None:
    async with await client.create_sandbox("used") as sandbox:
        for _ in range(3):
            assert (await sandbox.run_command("true")).ok


async def test_at_other_levels_work_goes_on_with_one_warning(
    opening: Opening, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opening() as client:
        with monkeypatch.context() as patch:
            full(patch)
            with pytest.warns(UserWarning, match="NOT recorded for now") as told:
                await use(client)
            assert len([one for one in told if "NOT recorded" in str(one.message)]) == 1
    assert (await verify(tmp_path))[0] == 0
    assert types(tmp_path).count("command.ended") == 3


async def create_one(opening: Opening) -> None:
    async with opening() as client:
        await client.create_sandbox("one")


async def test_a_log_that_was_cut_is_noticed_by_the_next_client(
    opening: Opening, tmp_path: Path
) -> None:
    await create_one(opening)
    (path,) = segment_paths(tmp_path / "audit")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    (tmp_path / "audit" / "checkpoint").unlink()
    code, output = await verify(tmp_path)
    assert code == 1
    assert "line 3 " in output
    assert "was cut" in output
    with pytest.warns(UserWarning, match="it was cut"):
        await create_one(opening)


def test_the_log_is_shown_copied_and_verified_elsewhere(opening: Opening, tmp_path: Path) -> None:
    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["--state-dir", str(tmp_path), "audit", *arguments])

    anyio.run(create_one, opening)
    shown = json.loads(invoke("tail", "-n", "2", "--json").stdout)["events"]
    assert [event["type"].rpartition(".")[2] for event in shown] == ["ended", "checkpoint"]
    assert "sandbox.create.began" in invoke("tail").stdout
    copy = tmp_path / "copy"
    assert invoke("export", str(copy)).exit_code == 0
    assert "exists" in invoke("export", str(copy)).stderr
    key = tmp_path / "key"
    key.write_text(invoke("export", "--public").stdout)
    done = invoke("verify", "--key", str(key), str(copy), "--json")
    assert json.loads(done.stdout)["status"] == "verified"
    assert done.exit_code == 0
    assert invoke("verify", "--checkpoint", str(copy / "checkpoint")).exit_code == 0
    done = invoke("verify", str(copy))
    assert (done.exit_code, done.output[:9]) == (1, "unpinned:")
    assert "audit key" in invoke("verify", "--key", "x", str(copy)).stderr


def test_what_is_done_to_keys_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_ENABLE_AUDIT_LOGS", "yes")
    for arguments in (["create"], ["rotate"], ["export", str(tmp_path / "bundle")]):
        done = CliRunner().invoke(app, ["--state-dir", str(tmp_path), "keys", *arguments])
        assert done.exit_code == 0, done.output
    assert types(tmp_path) == ["keys.create", *both("keys.rotate"), "keys.export"]
    assert anyio.run(verify, tmp_path)[0] == 0


def test_a_state_folder_without_a_log_says_how_to_have_one(tmp_path: Path) -> None:
    for command in (["verify"], ["export", "--public"], ["export", str(tmp_path / "x")]):
        done = CliRunner().invoke(app, ["--state-dir", str(tmp_path), "audit", *command])
        assert done.exit_code == 1
        assert "no audit log" in done.stderr
