"""How every command runs: its options, its loop, its errors and exit codes.

Exit codes are 0, 1 for an error of the SDK, 2 for a command line that cannot be meant, 130 and 143
after Ctrl-C and SIGTERM, which end every sandbox that was set up.
"""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any, NoReturn, TypeVar

import anyio
import attrs
import click

from sandbox_sdk.cli.output import Output
from sandbox_sdk.cli.streams import STDOUT
from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.config import Settings
from sandbox_sdk.errors import SandboxError
from sandbox_sdk.store.folders import StateFolders
from sandbox_sdk.wire import error_to_json

# Any: click decorates functions of every signature.
Command = TypeVar("Command", bound=Callable[..., Any])

_OF_SIGNAL = 128


@attrs.define
class Options:
    """What was said before or after the command's name.

    Attributes:
        as_json: Whether to write JSON.
        state_dir: The state folder; ``None`` is what settings say.
        endpoint: The address of a server; ``None`` is what settings say.
    """

    as_json: bool = False
    state_dir: Path | None = None
    endpoint: str | None = None


def global_options(command: Command) -> Command:
    """Let a command take ``--json``, ``--state-dir`` and ``--endpoint``, for ``run`` to find."""

    def keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        options = context.ensure_object(Options)
        if value:
            setattr(options, str(parameter.name), value)

    as_json = click.option(
        "--json",
        "as_json",
        is_flag=True,
        expose_value=False,
        callback=keep,
        help="Write one JSON document to standard output, and nothing else there.",
    )
    state_dir = click.option(
        "--state-dir",
        type=click.Path(file_okay=False, path_type=Path),
        expose_value=False,
        callback=keep,
        help="Where records, workspaces and models are kept.",
    )
    endpoint = click.option(
        "--endpoint",
        expose_value=False,
        callback=keep,
        help="A server whose sandboxes to use: unix:///PATH or https://HOST:PORT.",
    )
    return as_json(state_dir(endpoint(command)))


class Failure(click.ClickException):
    """An error of the SDK, as a command shows it: one message, no traceback."""

    exit_code = 1

    def __init__(self, error: SandboxError, output: Output) -> None:
        super().__init__(error.message)
        self._error = error
        self._output = output

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the message to standard error, and the error as JSON where that was asked for."""
        self._output.document({"error": error_to_json(self._error)})
        self._output.note(f"error: {self.message}")


class Session:
    """What a command works with.

    Attributes:
        output: Where it writes.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self.output = Output(as_json=options.as_json)

    @cached_property
    def settings(self) -> Settings:
        """What is set."""
        return Settings.load(endpoint=self._options.endpoint, state_dir=self._options.state_dir)

    def client(self) -> AsyncSandboxClient:
        """Return a new client; enter it."""
        return AsyncSandboxClient(
            endpoint=self._options.endpoint, state_dir=self._options.state_dir
        )

    async def models_dir(self) -> Path:
        """Return the folder of installed models."""
        folders = await anyio.to_thread.run_sync(StateFolders.open, self.settings.state_dir)
        return folders.models


def run(work: Callable[[Session], Awaitable[int]]) -> NoReturn:
    """Run a command to its end, and exit with the code it returns.

    Raises:
        Failure: It ended with an error of the SDK.
        Exit: It ended, or was interrupted.
    """
    session = Session(click.get_current_context().ensure_object(Options))

    async def main() -> int:
        return await work(session)

    with _warnings_to(session.output), _interruptible() as interrupted:
        try:
            code = anyio.run(main)
        except KeyboardInterrupt:
            code = _OF_SIGNAL + (interrupted[-1] if interrupted else signal.SIGINT)
        except ExceptionGroup as group:
            code = _code_of(_sole(group), session.output)
        except (SandboxError, OSError) as error:
            code = _code_of(error, session.output)
    raise click.exceptions.Exit(code)


def _code_of(error: Exception, output: Output) -> int:
    if isinstance(error, SandboxError):
        raise Failure(error, output) from error
    if isinstance(error, BrokenPipeError):
        # Nobody reads what is left in the buffer, about which Python would complain at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
        return _OF_SIGNAL + signal.SIGPIPE
    raise error


def _sole(group: ExceptionGroup[Exception]) -> Exception:
    """The one error that task groups wrapped, or the group if there are several."""
    if len(group.exceptions) != 1:
        return group
    match group.exceptions[0]:
        case ExceptionGroup() as inner:
            return _sole(inner)
        case error:
            return error


@contextmanager
def _interruptible() -> Generator[list[int]]:
    """Let SIGTERM and SIGHUP do what Ctrl-C does; give the list of those that came."""
    came: list[int] = []

    def interrupt(number: int, _: object) -> None:
        came.append(number)
        signal.raise_signal(signal.SIGINT)

    before = {
        number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _warnings_to(output: Output) -> Generator[None]:
    """Show the SDK's warnings as notes, each once."""
    told: set[str] = set()

    def show(message: Warning | str, *_: object, **__: object) -> None:
        if (text := str(message)) not in told:
            told.add(text)
            output.note(f"warning: {text}")

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield
