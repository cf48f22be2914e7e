"""What running commands promises."""

from __future__ import annotations

import signal
from typing import Any, cast

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.errors import CallTimeout, CommandFailed, ConfigError
from sandbox_sdk.testing.inside import PROGRAMS, workspace
from sandbox_sdk.values import EndKind


async def command_reports_exit_code_and_both_streams(client: AsyncSandboxClient) -> None:
    """Exit code, standard output and standard error arrive apart and whole."""
    async with await client.create_sandbox("contract") as sandbox:
        done = await sandbox.run_command("echo out; echo err >&2; exit 3")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    assert (done.ended.kind, done.exit_code, done.ok) == (EndKind.NONZERO, 3, False)


async def arguments_arrive_as_given(client: AsyncSandboxClient) -> None:
    """No argument is split, expanded or taken for an option of ours."""
    words = ["--bind", "/ /", "a\nb", "$HOME", "*", "", "ünï", "'\"\\"]
    script = "import sys; print(ascii(sys.argv[1:]))"
    async with await client.create_sandbox("contract") as sandbox:
        done = await sandbox.run_command(["python", "-c", script, *words])
    assert done.stdout.strip() == ascii(words)


async def command_reads_stdin_to_its_end(client: AsyncSandboxClient) -> None:
    """Standard input arrives whole, more than fits any buffer, and then ends."""
    data = bytes(range(256)) * 8192
    async with await client.create_sandbox("contract") as sandbox:
        done = await sandbox.run_command(["sha256sum"], stdin=data)
        nothing = await sandbox.run_command(["cat"])
    import hashlib

    assert done.stdout.split()[0] == hashlib.sha256(data).hexdigest()
    assert (nothing.ok, nothing.stdout) == (True, "")


async def command_that_ignores_stdin_ends(client: AsyncSandboxClient) -> None:
    """A command that never reads what it is given still ends by itself."""
    async with await client.create_sandbox("contract") as sandbox:
        done = await sandbox.run_command(["true"], stdin=b"x" * 4_000_000, timeout=10)
    assert done.ok


async def output_is_bytes(client: AsyncSandboxClient) -> None:
    """Output that is no text is kept byte by byte."""
    script = "import sys; sys.stdout.buffer.write(bytes(range(256)))"
    async with await client.create_sandbox("contract") as sandbox:
        done = await sandbox.run_command(["python", "-c", script])
    assert done.stdout_bytes == bytes(range(256))


async def cwd_and_env_are_the_commands_own(client: AsyncSandboxClient) -> None:
    """A command has its folder and variables, and the sandbox's variables besides."""
    async with await client.create_sandbox("contract", env={"FROM": "sandbox"}) as sandbox:
        await sandbox.files.make_dir("sub")
        done = await sandbox.run_command(
            'pwd; echo "$FROM $OWN"', cwd="sub", env={"OWN": "command"}
        )
        documented = await sandbox.run_command("pwd", cwd="/workspace/sub")
        after = await sandbox.run_command('echo "$OWN"')
        place = await workspace(sandbox)
    assert done.stdout == f"{place}/sub\nsandbox command\n"
    assert documented.stdout == f"{place}/sub\n"
    assert after.stdout == "\n"


async def variables_may_be_as_large_as_said(client: AsyncSandboxClient) -> None:
    """A sandbox takes all the variables that are allowed, of any characters."""
    text = "\x01é" * 30_000
    env = {f"V{number}": text for number in range(11)}
    async with await client.create_sandbox("contract", env=env) as sandbox:
        done = await sandbox.run_command('test "$V0" = "$V10" && printf %s "$V10"')
    assert done.stdout == text


async def missing_program_is_127(client: AsyncSandboxClient) -> None:
    """A program that is not there ends as a shell would say it."""
    async with await client.create_sandbox("contract") as sandbox:
        done = await sandbox.run_command(["no-such-program"])
    assert done.exit_code == 127
    assert done.stderr.endswith("/no-such-program: No such file or directory\n")
    assert done.stderr[0] == "/"


async def nonsense_is_refused(client: AsyncSandboxClient) -> None:
    """What no command can be is a ConfigError."""
    async with await client.create_sandbox("contract") as sandbox:
        for command in ([], [""], ["a\0b"], "a\0b", "\ud800", ["x" * 200_000], 5, None):
            try:
                await sandbox.run_command(cast(Any, command))
            except ConfigError:
                continue
            raise AssertionError(f"{command!r:.20} was not refused")
        async with sandbox.start_command(["cat"]) as process:
            for call in (
                sandbox.run_command("cat", stdin=cast(Any, 5)),
                sandbox.run_command("cat", env=cast(Any, ["A"])),
                sandbox.run_code(cast(Any, None)),
                process.signal(999),
                process.signal(-1),
            ):
                try:
                    await call
                except ConfigError:
                    continue
                raise AssertionError("an argument that cannot be was not refused")
        assert (await sandbox.run_command(["echo", "\udcff"])).stdout_bytes == b"\xff\n"


async def signal_that_ends_a_command_is_named(client: AsyncSandboxClient) -> None:
    """A command that a signal ended says which."""
    async with await client.create_sandbox("contract") as sandbox:
        done = await sandbox.run_command("kill -TERM $$")
    assert (done.ended.kind, done.ended.signal) == (EndKind.SIGNAL, signal.SIGTERM)


async def exit_code_is_no_verdict(client: AsyncSandboxClient) -> None:
    """A program cannot choose a verdict of the host by its exit code or signal."""
    async with await client.create_sandbox("contract") as sandbox:
        coded = await sandbox.run_command("exit 137")
        killed = await sandbox.run_command("kill -KILL $$")
    assert coded.ended.kind is EndKind.NONZERO
    assert killed.ended.kind is EndKind.SIGNAL


async def timeout_kills_all_descendants(client: AsyncSandboxClient) -> None:
    """Past its time a command is gone with all it forked, even what left its session."""
    script = (
        "trap '' TERM INT HUP; echo partial; "
        "setsid sh -c 'setsid sleep 1000 & exec sleep 1000' & sleep 1000"
    )
    async with await client.create_sandbox("contract") as sandbox:
        done = await sandbox.run_command(script, timeout=0.5)
        left = await sandbox.run_command(PROGRAMS)
    assert (done.ended.kind, done.ended.limit) == (EndKind.TIMEOUT, "timeout")
    assert (done.ended.limit_value, done.stdout) == (0.5, "partial\n")
    assert "sleep" not in left.stdout
    try:
        done.check()
    except CallTimeout as error:
        assert error.stdout == "partial\n"
    else:
        raise AssertionError("check() accepted a timeout")


async def background_process_outlives_its_command(client: AsyncSandboxClient) -> None:
    """What a command leaves running in good order goes on, and does not delay its end."""
    async with await client.create_sandbox("contract") as sandbox:
        done = await sandbox.run_command("sleep 1000 & echo started", timeout=10)
        left = await sandbox.run_command(PROGRAMS)
    assert (done.ok, done.stdout) == (True, "started\n")
    assert "sleep" in left.stdout


async def too_much_output_ends_the_command(client: AsyncSandboxClient) -> None:
    """Output past its bound is cut, counted, and ends the command; the sandbox goes on."""
    async with await client.create_sandbox("contract", resources={"output": "1MiB"}) as sandbox:
        done = await sandbox.run_command("yes", timeout=20)
        after = await sandbox.run_command("echo still here")
    assert (done.ended.kind, done.ended.truncated) == (EndKind.OUTPUT_LIMIT, True)
    assert len(done.stdout_bytes) == done.ended.bytes_kept == 1024 * 1024
    assert done.ended.bytes_seen > done.ended.bytes_kept
    assert after.stdout == "still here\n"


async def check_raises_with_the_output(client: AsyncSandboxClient) -> None:
    """``check()`` tells what a failed command said last."""
    async with await client.create_sandbox("contract") as sandbox:
        done = await sandbox.run_command("echo reason >&2; exit 1")
    try:
        done.check()
    except CommandFailed as error:
        assert "reason" in str(error)
    else:
        raise AssertionError("check() accepted exit code 1")


async def started_command_streams_both_ways(client: AsyncSandboxClient) -> None:
    """A running command can be read, written to and waited for."""
    async with (
        await client.create_sandbox("contract") as sandbox,
        sandbox.start_command(["cat"]) as process,
    ):
        await process.write(b"one\n")
        async for data in process.stdout:
            assert data == b"one\n"
            break
        await process.write(b"two\n")
        await process.close_stdin()
        rest = b"".join([data async for data in process.stdout])
        ended = await process.wait()
    assert (rest, ended.kind) == (b"two\n", EndKind.OK)


async def started_command_can_be_signalled(client: AsyncSandboxClient) -> None:
    """A signal reaches the command itself."""
    script = "trap 'echo caught; exit 5' USR1; echo ready; while true; do sleep 0.05; done"
    async with (
        await client.create_sandbox("contract") as sandbox,
        sandbox.start_command(script) as process,
    ):
        output = b""
        async for data in process.stdout:
            output += data
            if output == b"ready\n":
                await process.signal(signal.SIGUSR1)
        ended = await process.wait()
    assert (output, ended.exit_code) == (b"ready\ncaught\n", 5)


async def started_command_ends_with_its_block(client: AsyncSandboxClient) -> None:
    """What still runs after the block is killed."""
    async with await client.create_sandbox("contract") as sandbox:
        async with sandbox.start_command("setsid sleep 1000 & sleep 1000"):
            pass
        left = await sandbox.run_command(PROGRAMS)
    assert "sleep" not in left.stdout


async def started_command_ends_with_its_block_unread(client: AsyncSandboxClient) -> None:
    """Output that nobody reads holds up neither the kill nor the sandbox."""
    async with await client.create_sandbox("contract") as sandbox:
        for script in ("yes", "yes >&2", "head -c 400000 /dev/zero"):
            async with sandbox.start_command(script) as process:
                async for _ in process.stderr if "&" in script else process.stdout:
                    break
        assert (await sandbox.run_command("echo still here")).stdout == "still here\n"


async def unread_output_is_dropped_by_wait_and_counted(client: AsyncSandboxClient) -> None:
    """Waiting without reading neither blocks the command nor hides the loss."""
    async with (
        await client.create_sandbox("contract") as sandbox,
        sandbox.start_command("head -c 3000000 /dev/zero") as process,
    ):
        ended = await process.wait()
    assert (ended.kind, ended.bytes_seen) == (EndKind.OK, 3_000_000)
    assert (ended.truncated, ended.bytes_kept) == (True, 0)


CHECKS = (
    command_reports_exit_code_and_both_streams,
    arguments_arrive_as_given,
    command_reads_stdin_to_its_end,
    command_that_ignores_stdin_ends,
    output_is_bytes,
    cwd_and_env_are_the_commands_own,
    variables_may_be_as_large_as_said,
    missing_program_is_127,
    nonsense_is_refused,
    signal_that_ends_a_command_is_named,
    exit_code_is_no_verdict,
    timeout_kills_all_descendants,
    background_process_outlives_its_command,
    too_much_output_ends_the_command,
    check_raises_with_the_output,
    started_command_streams_both_ways,
    started_command_can_be_signalled,
    started_command_ends_with_its_block,
    started_command_ends_with_its_block_unread,
    unread_output_is_dropped_by_wait_and_counted,
)
