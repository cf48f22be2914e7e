# Generated from sandbox_sdk/process.py. Edit that, then run: nox -s generate -- --write
"""A command that runs inside while the caller goes on."""

from __future__ import annotations

from collections.abc import Iterator

from sandbox_sdk.process import AsyncProcess
from sandbox_sdk.values import Ended
from sandbox_sdk_sync._twin import Twin


class Process(Twin[AsyncProcess]):
    """A running command: read its output as it comes, write to it, signal it, wait for it.

    Output that nobody reads makes the command wait, as a full pipe does. On a terminal all output
    is ``stdout``, and what is written is typed: byte 3 is Ctrl-C, byte 4 Ctrl-D.
    """

    @property
    def stdout(self) -> Iterator[bytes]:
        """Standard output as it comes, in pieces of any length; ends when the command ends."""
        return self._portal.follow(lambda: self._core.stdout)

    @property
    def stderr(self) -> Iterator[bytes]:
        """Standard error as it comes, in pieces of any length; ends when the command ends."""
        return self._portal.follow(lambda: self._core.stderr)

    def write(self, data: bytes | str) -> None:
        """Write to standard input, text as UTF-8; waits while the command does not read.

        What a command that has ended did not read is dropped.

        Raises:
            ConfigError: It is neither bytes nor text.
            SandboxEnded: The sandbox has ended.
        """
        self._call(self._core.write, data)

    def close_stdin(self) -> None:
        """End standard input; the command reads end of file after what was written.

        On a terminal that is Ctrl-D, which a command in raw mode reads as a key like others.
        """
        self._call(self._core.close_stdin)

    def resize(self, columns: int, rows: int) -> None:
        """Set the size of the command's terminal; its programs get ``SIGWINCH``.

        Nothing happens once the command has ended.

        Raises:
            ConfigError: It was started without a terminal, or there is no such size.
            SandboxEnded: The sandbox has ended.
        """
        self._call(self._core.resize, columns, rows)

    def signal(self, number: int) -> None:
        """Send a signal to the command itself; nothing happens once it has ended.

        Args:
            number: For example ``signal.SIGINT``.

        Raises:
            ConfigError: There is no such signal.
        """
        self._call(self._core.signal, number)

    def kill(self) -> None:
        """End the command and all its descendants, and wait until they are gone."""
        self._call(self._core.kill)

    def wait(self) -> Ended:
        """Wait for the end and return how the command ended.

        Output that has not been read by now is dropped, and counted in ``bytes_seen``.
        """
        return self._call(self._core.wait)
