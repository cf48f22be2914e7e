"""Attacks on what surrounds a sandbox: environment, arguments, descriptors, output streams."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from attacking import PROGRAMS, Inside, OpenClient, Outside
from host import below, inits, inner_pid, told

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.sandbox import AsyncSandbox

pytestmark = pytest.mark.anyio

SECRET = "sk-canary-77c1"


@pytest.fixture
async def sandbox_beside_secret(
    own_client: OpenClient, programs: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[AsyncSandbox]:
    """Put a key into our own environment, as users have theirs, and only then open a client."""
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    client = await own_client()
    async with await client.create_sandbox("beside a secret", files=programs) as sandbox:
        yield sandbox


async def test_a03_key_in_own_environment(sandbox_beside_secret: AsyncSandbox) -> None:
    """Commands and code begin with nothing of the caller's environment."""
    outside = subprocess.run(["env"], capture_output=True, text=True, check=True)
    assert SECRET in outside.stdout
    command = await sandbox_beside_secret.run_command("env")
    code = await sandbox_beside_secret.run_code("import os; print(dict(os.environ))")
    for shown in (command.stdout, code.stdout):
        assert "PATH" in shown
        assert SECRET not in shown


async def test_a04_key_in_any_environment(
    sandbox_beside_secret: AsyncSandbox, tmp_path: Path
) -> None:
    """No ``/proc/<pid>/environ`` has it; bwrap's own ``--clearenv`` would leave it in one."""
    words = [
        "bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--unshare-all",
        "--clearenv", "--", sys.executable, str(PROGRAMS / "environments.py"), SECRET,
    ]  # fmt: skip
    naive = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert told(naive.stdout)["1/environ"] == "found"

    words = ["python", "attacks/environments.py", SECRET]
    tried = told((await sandbox_beside_secret.run_command(words)).stdout)

    assert "1/environ" in tried
    assert "found" not in tried.values()
    # The agent cannot be read from inside; but what it was started with has no key either.
    assert list(_environments(os.getpid()))
    assert all(SECRET.encode() not in text for text in _environments(os.getpid()))


def _environments(ancestor: int) -> Iterator[bytes]:
    """Yield the environment of each process below one, as far as the host lets us read them."""
    for pid in below(ancestor):
        try:
            yield Path(f"/proc/{pid}/environ").read_bytes()
        except (PermissionError, ProcessLookupError, FileNotFoundError):
            continue  # a plain user may not read a process that is not dumpable


async def test_a05_tokens_and_names(
    client: AsyncSandboxClient, programs: dict[str, str], outside: Outside
) -> None:
    """Neither arguments, environments nor mounts tell what a sandbox is called or was given."""
    waiting = [sys.executable, "-c", "input()", SECRET]
    with subprocess.Popen(waiting, stdin=subprocess.PIPE) as careless:
        shown = outside("environments", SECRET, str(careless.pid))
        careless.communicate(b"\n")
    assert shown[f"{careless.pid}/cmdline"] == "found"
    sandbox = await client.create_sandbox(
        "name-of-canary", files=programs, metadata={"token": SECRET}
    )
    async with sandbox:
        for text in (SECRET, "name-of-canary"):
            done = await sandbox.run_command(["python", "attacks/environments.py", text])
            tried = told(done.stdout)
            assert "self/mountinfo" in tried
            assert "found" not in tried.values(), text


async def test_a05_paths_and_names_of_the_host(
    sandbox: AsyncSandbox, inside: Inside, tmp_path: Path
) -> None:
    """Neither arguments, environments nor the host's name tell who runs a sandbox where.

    ``/proc/self/mountinfo`` tells one thing that bind mounts cannot hide: from which folders of
    the host the interpreter, its packages and the workspace are bound. That is a path with the
    sandbox's id, and no name, token or setting. So short a word as a host's name may be part of it.
    """
    for text in (socket.gethostname(), str(tmp_path)):
        tried = await inside("environments", text)
        assert {name for name, how in tried.items() if how == "found"} <= {"self/mountinfo"}
    name = await sandbox.run_command("hostname; uname -n; cat /proc/sys/kernel/hostname")
    assert set(name.stdout.split()) == {"sandbox"}


async def test_a06_inherited_descriptors(
    own_client: OpenClient, programs: dict[str, str], tmp_path: Path
) -> None:
    """A folder that the caller left open and inheritable is not in any process inside."""
    (tmp_path / "left-open").mkdir()
    (tmp_path / "left-open" / "host-file").touch()
    folder = os.open(tmp_path / "left-open", os.O_RDONLY)
    os.set_inheritable(folder, True)
    try:
        words = [
            "bwrap", "--ro-bind", "/usr", "/usr", "--symlink", "usr/lib64", "/lib64",
            "--symlink", "usr/lib", "/lib", "--proc", "/proc", "--unshare-all", "--",
            "/usr/bin/ls", f"/proc/self/fd/{folder}/",
        ]  # fmt: skip
        naive = subprocess.run(words, close_fds=False, capture_output=True, text=True, check=True)
        assert naive.stdout == "host-file\n"
        client = await own_client()
        sandbox = await client.create_sandbox("descriptors", files=programs)
        done = await sandbox.run_command(["python", "attacks/descriptors.py"])
        (agent,) = map(inner_pid, inits(os.getpid()))
        code = await sandbox.run_code("import os; print(*os.listdir('/proc/self/fd'))")
    finally:
        os.close(folder)
    tried = told(done.stdout)
    own = {name: target for name, target in tried.items() if name.startswith("own ")}
    assert {name for name, target in own.items() if "/proc/" not in target} == {
        "own 0", "own 1", "own 2",
    }  # fmt: skip
    assert all(target.startswith(("pipe:", "/proc/")) for target in own.values())
    assert "host-file" not in " ".join(tried.values())
    assert tried[f"{agent} fd"] == "EACCES"
    # A Python context has two more: its code comes in, and its results go out.
    assert len(code.stdout.split()) <= 6


async def test_a07_emptying_the_hosts_log(sandbox: AsyncSandbox, tmp_path: Path) -> None:
    """Output goes through pipes: reopened for writing, they lead to no file of the host."""
    log = tmp_path / "log"
    log.write_text("the host's own lines\n")
    program = [sys.executable, str(PROGRAMS / "truncate_output.py")]
    with log.open("a") as append_only:
        subprocess.run(program, stdout=append_only, stderr=append_only, check=True)
    assert "the host's own lines" not in log.read_text()

    done = await sandbox.run_command(["python", "attacks/truncate_output.py"])

    assert set(told(done.stdout).values()) <= {"EINVAL", "EACCES"}
    assert done.stdout.startswith("written before\n")
