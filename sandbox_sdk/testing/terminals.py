"""What commands on a terminal promise."""

from __future__ import annotations

import hashlib
from typing import Any, cast

import anyio

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.errors import ConfigError
from sandbox_sdk.process import AsyncProcess
from sandbox_sdk.testing.inside import PROGRAMS, has
from sandbox_sdk.values import EndKind

_SHELL = ("/bin/bash", "--norc", "--noediting")


class _Screen:
    """What a process wrote to its terminal so far."""

    def __init__(self, process: AsyncProcess) -> None:
        self._pieces = process.stdout
        self._seen = b""

    async def wait_for(self, text: bytes) -> bytes:
        """Read until the text is there; return all up to its end, which is then no more there."""
        while text not in self._seen:
            self._seen += await anext(self._pieces)
        before, _, self._seen = self._seen.partition(text)
        return before + text


async def terminal_is_the_commands_own(client: AsyncSandboxClient) -> None:
    """All three streams are a terminal of the given size, which controls the command's session."""
    script = (
        "test -t 0 && test -t 1 && test -t 2 && tty && stty size && echo $TERM && "
        "echo err >&2 && echo through > /dev/tty && ps -o tty= -p $$ > /dev/null; exit 3"
    )
    async with await client.create_sandbox("contract") as sandbox:
        done = await sandbox.run_command(script, tty=True, columns=132, rows=43)
        named = await sandbox.run_command("echo $TERM", tty=True, env={"TERM": "dumb"})
        plain = await sandbox.run_command("test -t 1 || env | grep -c TERM")
    first, *rest = done.stdout.split("\r\n")
    assert first.startswith("/dev/pts/")
    assert rest == ["43 132", "xterm-256color", "err", "through", ""]
    assert (done.stderr, done.ended.kind, done.exit_code) == ("", EndKind.NONZERO, 3)
    assert (named.stdout, plain.stdout) == ("dumb\r\n", "0\n")


async def terminal_input_is_typed(client: AsyncSandboxClient) -> None:
    """Input is echoed and edited as typed; its end is an end for who reads lines."""
    async with await client.create_sandbox("contract") as sandbox:
        for stdin in ("lime\x7f\x7fne\n", "line"):
            done = await sandbox.run_command("stty -echo; cat", tty=True, stdin=stdin, timeout=10)
            assert done.ok, stdin
            assert "line" in done.stdout
        nothing = await sandbox.run_command(["cat"], tty=True, timeout=10)
    assert nothing.ok


async def much_passes_a_terminal_both_ways(client: AsyncSandboxClient) -> None:
    """A terminal passes more than any buffer holds, every byte of it, both ways at once."""
    script = "stty raw -echo; echo ready; head -c 3000000 | tee copy; sha256sum copy >&2"
    data = bytes(range(256)) * 12_000
    digest = hashlib.sha256(data[:3_000_000]).hexdigest().encode()
    async with (
        await client.create_sandbox("contract") as sandbox,
        sandbox.start_command(script, tty=True) as process,
    ):
        screen = _Screen(process)
        await screen.wait_for(b"ready\n")

        async def type_all() -> None:
            await process.write(data[:3_000_000])

        async with anyio.create_task_group() as group:
            group.start_soon(type_all)
            assert await screen.wait_for(digest) == data[:3_000_000] + digest


async def keys_make_signals(client: AsyncSandboxClient) -> None:
    """Ctrl-C interrupts what runs in the foreground, and Ctrl-D ends a shell."""
    async with (
        await client.create_sandbox("contract") as sandbox,
        sandbox.start_command(_SHELL, tty=True, env={"PS1": "> "}) as process,
    ):
        screen = _Screen(process)
        await screen.wait_for(b"> ")
        await process.write("sh -c 'echo started; exec sleep 1000'\n")
        await screen.wait_for(b"\r\nstarted\r\n")
        await process.write(b"\x03")
        await screen.wait_for(b"> ")
        await process.write("echo code $?\n")
        await screen.wait_for(b"\r\ncode 130\r\n")
        await process.write(b"\x04")
        ended = await process.wait()
    assert ended.kind is EndKind.OK


async def resized_terminal_tells_its_programs(client: AsyncSandboxClient) -> None:
    """A new size comes with a signal; a pipe has none."""
    script = "trap 'stty size' WINCH; echo ready; while :; do read -t 0.1; done"
    async with await client.create_sandbox("contract") as sandbox:
        async with sandbox.start_command(script, tty=True) as process:
            screen = _Screen(process)
            await screen.wait_for(b"ready\r\n")
            await process.resize(200, 50)
            assert b"50 200" in await screen.wait_for(b"200\r\n")
            for columns, rows in ((0, 1), (1, 65536), (-1, 1), (cast(Any, "80"), 24)):
                await _refused(process.resize(columns, rows))
        await process.resize(80, 24)
        async with sandbox.start_command(["cat"]) as process:
            await _refused(process.resize(80, 24))
        await _refused(sandbox.run_command("true", tty=True, columns=0))


async def _refused(call: Any) -> None:
    try:
        await call
    except ConfigError:
        return
    raise AssertionError("was not refused")


async def killed_terminal_leaves_nothing(client: AsyncSandboxClient) -> None:
    """Leaving the block ends the session with all that ignores the hang-up."""
    script = "trap '' HUP INT TERM; setsid sleep 1000 & echo ready; sleep 1000"
    async with await client.create_sandbox("contract") as sandbox:
        async with sandbox.start_command(script, tty=True) as process:
            await _Screen(process).wait_for(b"ready\r\n")
        left = await sandbox.run_command(f"{PROGRAMS}; ls /dev/pts")
        many = [await sandbox.run_command("tty", tty=True) for _ in range(20)]
    assert "sleep" not in left.stdout
    if has(sandbox, "mnt_namespace"):  # which has terminals of its own
        assert left.stdout.endswith("ptmx\n")
        assert {done.stdout for done in many} == {"/dev/pts/0\r\n"}


async def unread_terminal_loses_nothing(client: AsyncSandboxClient) -> None:
    """All that was written before the end arrives, though the terminal hangs up then."""
    async with await client.create_sandbox("contract") as sandbox:
        for _ in range(5):
            done = await sandbox.run_command("seq 100000", tty=True)
            assert done.stdout == "".join(f"{n}\r\n" for n in range(1, 100_001))


CHECKS = (
    terminal_is_the_commands_own,
    terminal_input_is_typed,
    much_passes_a_terminal_both_ways,
    keys_make_signals,
    resized_terminal_tells_its_programs,
    killed_terminal_leaves_nothing,
    unread_terminal_loses_nothing,
)
