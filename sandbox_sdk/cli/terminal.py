"""This terminal handed to a command inside: keys, size and screen pass as they are."""

from __future__ import annotations

import os
import signal
import termios
import tty
from collections.abc import Generator
from contextlib import contextmanager

import anyio
import click

from sandbox_sdk.cli import streams
from sandbox_sdk.process import AsyncProcess
from sandbox_sdk.values import Ended


def size() -> tuple[int, int]:
    """Return this terminal's columns and rows, as a sandbox's terminal takes them.

    Raises:
        click.UsageError: Input or output is no terminal.
    """
    if not (os.isatty(streams.STDIN) and os.isatty(streams.STDOUT)):
        raise click.UsageError("--tty needs a terminal as input and output; leave it out")
    columns, rows = os.get_terminal_size(streams.STDOUT)
    # A terminal that was never told its size says 0.
    return columns or 80, rows or 24


async def connect(process: AsyncProcess) -> Ended:
    """Carry keys, sizes and output until the command has ended."""
    with _raw(streams.STDIN):
        async with anyio.create_task_group() as group:
            group.start_soon(_type, process)
            group.start_soon(_follow_size, process)
            async for data in process.stdout:
                await streams.write(streams.STDOUT, data)
            group.cancel_scope.cancel()
    return await process.wait()


async def _type(process: AsyncProcess) -> None:
    while data := await streams.read(streams.STDIN):
        await process.write(data)


async def _follow_size(process: AsyncProcess) -> None:
    with anyio.open_signal_receiver(signal.SIGWINCH) as changes:
        async for _ in changes:
            await process.resize(*size())


@contextmanager
def _raw(descriptor: int) -> Generator[None]:
    """Pass every key on, Ctrl-C too; leave the terminal as it was."""
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
