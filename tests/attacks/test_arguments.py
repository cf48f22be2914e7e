"""Attacks through what callers pass on: names, ids, commands, variables, file names."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from host import inits, inner_pid

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.errors import ConfigError, FileError, SandboxNotFound
from sandbox_sdk.sandbox import AsyncSandbox

pytestmark = pytest.mark.anyio

BIND = ["--bind", "/", "/host"]
HOSTILE = ("--bind", "--", "-", "; touch /tmp/x", "$(id)", "ünï", "a" * 200, "-c", "--uid=0")


async def test_a34_options_through_a_command(sandbox: AsyncSandbox) -> None:
    """Words that are options of bwrap reach the program as words.

    Without a ``--`` before them, and with options as arguments, bwrap would take them.
    """
    shown = ["--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin"]
    libraries = ["--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64"]
    words = [*BIND, "/usr/bin/ls", "/host"]
    naive = subprocess.run(
        ["bwrap", *shown, *libraries, *words], capture_output=True, text=True, check=True
    )
    assert "etc" in naive.stdout.split()

    done = await sandbox.run_command(words)
    print_words = "import sys; print(sys.argv[1:])"
    told = await sandbox.run_command(["python", "-c", print_words, *words, "\n", ""])

    assert done.exit_code == 127  # there is no program called --bind
    assert told.stdout.strip() == str([*words, "\n", ""])
    assert not (await sandbox.files.exists("/host"))


@pytest.mark.parametrize("name", HOSTILE)
async def test_a34_names_of_sandboxes(client: AsyncSandboxClient, name: str) -> None:
    """A name is kept as it is, and never becomes a path, an option or a shell's line."""
    async with await client.create_sandbox(name) as sandbox:
        (init,) = inits(os.getpid())
        done = await sandbox.run_command(f"cat /proc/{inner_pid(init)}/cmdline; ls /")
    assert (await client.get_sandbox(sandbox.id)).name == name
    assert name.strip("-") == "" or name not in done.stdout
    assert "host" not in done.stdout.split()


@pytest.mark.parametrize("name", ["", "a\nb", "a\0b", "\x1b[2J", "\u202e", "a" * 201])
async def test_a34_names_that_cannot_be(client: AsyncSandboxClient, name: str) -> None:
    """A name that could forge a line of a log or a terminal is refused before anything is made."""
    with pytest.raises(ConfigError, match="name"):
        await client.create_sandbox(name)
    assert await client.list_sandboxes() == []


@pytest.mark.parametrize("id", ["../../x", "/etc", "--bind", "sb_", "sb_" + "0" * 26, "a\nb", ""])
async def test_a34_ids(client: AsyncSandboxClient, id: str) -> None:
    """An id that we did not make is unknown, whatever path or option it looks like."""
    for act in (client.get_sandbox, client.delete_sandbox):
        with pytest.raises(SandboxNotFound):
            await act(id)


async def test_a34_variables(client: AsyncSandboxClient) -> None:
    """Variables arrive as given, options and line ends included; what none can hold is refused."""
    env = {"A": "--bind", "B": "x\nLD_PRELOAD=/tmp/x", "C": "() { :; }; echo taken"}
    async with await client.create_sandbox("variables", env=env) as sandbox:
        code = f"import os; print({{name: os.environ.get(name) for name in {list(env)!r}}})"
        done = await sandbox.run_code(code)
        preloaded = await sandbox.run_command(["printenv", "LD_PRELOAD"])
        for wrong in ({"A": "\0"}, {"A=B": "x"}, {"": "x"}, {"A\0": "x"}):
            with pytest.raises(ConfigError):
                await sandbox.run_command("true", env=wrong)
            with pytest.raises(ConfigError):
                await client.create_sandbox("variables", env=wrong)
    assert done.stdout.strip() == str(env)
    assert preloaded.exit_code == 1


async def test_a34_nul_in_arguments(sandbox: AsyncSandbox) -> None:
    """What the kernel would cut at a NUL is refused instead."""
    for command in ("true\0false", ["true\0false"], ["true", "a\0b"]):
        with pytest.raises(ConfigError, match="NUL"):
            await sandbox.run_command(command)
    with pytest.raises(ConfigError, match="NUL"):
        await sandbox.run_command("true", cwd="/tmp\0/x")
    with pytest.raises(FileError):
        await sandbox.files.read("/etc/passwd\0.txt")


@pytest.mark.parametrize(
    "make",
    [lambda outside: "../escaped", str, lambda outside: f"a/../../../../{outside}"],
    ids=["parent", "absolute", "through-parents"],
)
async def test_a34_names_of_initial_files(
    client: AsyncSandboxClient, state: Path, tmp_path: Path, make: Callable[[Path], str]
) -> None:
    """A file to begin with lands in the workspace, or is refused."""
    outside = tmp_path / "escaped"
    outside.write_text("the host's")
    with pytest.raises(ConfigError):
        await client.create_sandbox("files", files={make(outside): "hostile"})
    assert outside.read_text() == "the host's"
    assert not list(state.rglob("escaped"))
