"""``exec``: a command in a sandbox, with this terminal's or pipe's input and output."""

from __future__ import annotations

import codecs
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import attrs
import click

from sandbox_sdk.cli import streams, terminal
from sandbox_sdk.cli.running import Session, global_options, run
from sandbox_sdk.cli.text import clean
from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.errors import SandboxEnded
from sandbox_sdk.parse import parse_seconds
from sandbox_sdk.process import AsyncProcess
from sandbox_sdk.sandbox import AsyncSandbox
from sandbox_sdk.values import Ended, EndKind
from sandbox_sdk.wire import to_json

_TIMED_OUT, _REFUSED, _KILLED, _OF_SIGNAL = 124, 125, 137, 128
_OWN_DOING = (EndKind.OK, EndKind.NONZERO)


@attrs.frozen(kw_only=True)
class _Wanted:
    """Which sandbox, and what to run in it."""

    command: tuple[str, ...]
    id: str | None
    name: str | None
    resources: dict[str, Any]
    timeout: float | None
    tty: bool


@click.command("exec", context_settings={"allow_interspersed_args": False})
@click.option("--id", help="The sandbox to use; it is kept.")
@click.option("--name", help="The sandbox of this name, made if there is none; it is kept.")
@click.option("--memory", help='For a new sandbox, for example "512MiB".')
@click.option("--cpu", type=float, help="For a new sandbox: cores, 0.5 is half of one.")
@click.option("--timeout", type=float, help="Seconds until the command is killed.")
@click.option("--tty", is_flag=True, help="Give it this terminal; its output comes as it is.")
@global_options
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(
    command: tuple[str, ...],
    id: str | None,
    name: str | None,
    memory: str | None,
    cpu: float | None,
    timeout: float | None,
    tty: bool,
) -> None:
    """Run a command in a sandbox: sandbox-sdk exec -- CMD ARGS...

    Without --id and --name the sandbox is a fresh one, deleted afterwards. The exit code is the
    command's own, 128 + n after signal n; or the host's verdict, which standard error tells: 124
    time is up, 137 out of memory, 125 any other limit or end.
    """
    if id and name:
        raise click.UsageError("give --id or --name, not both")
    resources = {"memory": memory, "cpu": cpu}
    wanted = _Wanted(
        command=command,
        id=id,
        name=name,
        resources={key: value for key, value in resources.items() if value is not None},
        timeout=timeout,
        tty=tty,
    )
    run(lambda session: _execute(session, wanted))


async def _execute(session: Session, wanted: _Wanted) -> int:
    parse_seconds(wanted.timeout, "timeout")
    if wanted.tty and session.output.as_json:
        raise click.UsageError("--tty and --json: give one, not both")
    if wanted.tty:
        terminal.size()  # refused before anything is made
    async with session.client() as client:
        sandbox = await _existing(client, wanted)
        kept = bool(wanted.id or wanted.name)
        if sandbox is None:
            sandbox = await client.create_sandbox(
                wanted.name or "exec", resources=wanted.resources or None
            )
        elif wanted.resources:
            raise click.UsageError(
                f"sandbox {sandbox.id} has its limits already: leave out --memory and --cpu"
            )
        try:
            async with sandbox:
                ended = await _run(session, sandbox, wanted)
        finally:
            if not kept:
                with anyio.CancelScope(shield=True):
                    await client.delete_sandbox(sandbox.id)
    if ended.kind not in _OWN_DOING:
        session.output.note(f"sandbox-sdk: the command ended {ended}")
    return exit_code(ended)


async def _existing(client: AsyncSandboxClient, wanted: _Wanted) -> AsyncSandbox | None:
    if wanted.id:
        return await client.get_sandbox(wanted.id)
    if wanted.name is None:
        return None
    ids = [info.id for info in await client.list_sandboxes() if info.name == wanted.name]
    if len(ids) > 1:
        raise click.UsageError(f"several sandboxes have this name; use --id: {', '.join(ids)}")
    return await client.get_sandbox(ids[0]) if ids else None


async def _run(session: Session, sandbox: AsyncSandbox, wanted: _Wanted) -> Ended:
    if session.output.as_json:
        stdin = b"" if os.isatty(streams.STDIN) else await streams.read_all(streams.STDIN)
        result = await sandbox.run_command(wanted.command, stdin=stdin, timeout=wanted.timeout)
        document = {
            "sandbox_id": sandbox.id,
            "ended": to_json(result.ended),
            "exit_code": exit_code(result.ended),
            "stdout": result.stdout,
            "stderr": result.stderr,
            "duration": result.duration,
        }
        session.output.document(document)
        return result.ended
    async with _started(sandbox, wanted) as process:
        with anyio.move_on_after(wanted.timeout):
            return await (terminal.connect(process) if wanted.tty else _connected(process))
        await process.kill()
        return Ended(kind=EndKind.TIMEOUT, limit="timeout", limit_value=wanted.timeout)


def _started(sandbox: AsyncSandbox, wanted: _Wanted) -> AbstractAsyncContextManager[AsyncProcess]:
    if not wanted.tty:
        return sandbox.start_command(wanted.command)
    columns, rows = terminal.size()
    return sandbox.start_command(wanted.command, tty=True, columns=columns, rows=rows)


async def _connected(process: AsyncProcess) -> Ended:
    """Carry input and output until the command has ended."""
    async with anyio.create_task_group() as inputs:
        inputs.start_soon(_feed, process)
        async with anyio.create_task_group() as outputs:
            outputs.start_soon(_copy, process.stdout, streams.STDOUT)
            outputs.start_soon(_copy, process.stderr, streams.STDERR)
        inputs.cancel_scope.cancel()
    return await process.wait()


async def _feed(process: AsyncProcess) -> None:
    with contextlib.suppress(SandboxEnded):  # told by the command's end
        while data := await streams.read(streams.STDIN):
            await process.write(data)
        await process.close_stdin()


async def _copy(source: AsyncIterator[bytes], target: int) -> None:
    """Copy bytes as they are, but to a terminal only harmless text."""
    if not os.isatty(target):
        async for data in source:
            await streams.write(target, data)
        return
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    async for data in source:
        await streams.write(target, clean(decoder.decode(data)).encode())
    await streams.write(target, clean(decoder.decode(b"", final=True)).encode())


def exit_code(ended: Ended) -> int:
    """Return the exit code that tells how a command ended."""
    match ended.kind:
        case EndKind.OK | EndKind.NONZERO:
            return ended.exit_code or 0
        case EndKind.SIGNAL:
            return _OF_SIGNAL + (ended.signal or 0)
        case EndKind.TIMEOUT:
            return _TIMED_OUT
        case EndKind.OOM:
            return _KILLED
        case _:
            return _REFUSED
