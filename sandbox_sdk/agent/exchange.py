"""One exchange as the agent holds it: a guest program's streams, and their flow control.

The streams are pipes; a command may have a terminal instead, which carries all of its output.
"""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable
from typing import Any

from sandbox_sdk.agent import frames, guest, keeper, starting, terminals

_NO_MORE = -1
_NEWLINE = ord("\n")


class Output:
    """One stream from the guest.

    Attributes:
        descriptor: The pipe's read end; -1 once it is closed.
        credit: Bytes that the host still takes.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.credit = frames.WINDOW
        self._kept_back: int | None = None

    def give(self, count: int) -> None:
        """Take note of more bytes that the host takes.

        Raises:
            ValueError: It is more than a window in all, so the host never had what it took.
        """
        if self.credit + (self._kept_back or 0) + count > frames.WINDOW:
            raise ValueError("more credit than was used")
        if self._kept_back is None:
            self.credit += count
        else:
            self._kept_back += count

    def hold(self, held: bool) -> None:
        """Keep all credit back, or use it again."""
        if held and self._kept_back is None:
            self._kept_back, self.credit = self.credit, 0
        elif not held and self._kept_back is not None:
            self.credit, self._kept_back = self._kept_back, None


class Exchange:
    """One running program and its streams."""

    def __init__(
        self,
        number: int,
        request: dict[str, Any],
        settings: guest.Settings,
        closing: Callable[[int], None],
    ) -> None:
        """Fork the program.

        Args:
            number: The host's number for it.
            request: What to run.
            settings: The sandbox's settings.
            closing: Called with each descriptor just before it is closed.

        Raises:
            OSError: No process or descriptor is left.
            KeyError: The request is not one the agent knows.
        """
        self.number = number
        self._closing = closing
        self.guest = 0
        self.held: list[bytes] = []
        self._early: list[int] = []
        self.ended: dict[str, Any] | None = None
        self.input = bytearray()
        self.input_over = request.get("input") is False
        self._killed = False
        self._taken = 0
        self._report_text = b""
        self._on_terminal = "terminal" in request
        self._line_begun = False  # on a terminal: what was typed last is no whole line
        self._left = False  # a terminal that no program holds; it would be ready without end
        started = starting.start(request, settings)
        self.child, self.report, self.stdin = started.child, started.report, started.stdin
        self.outputs = {stream: Output(end) for stream, end in started.outputs.items()}

    def take_input(self, data: bytes) -> None:
        """Queue bytes for standard input; more than a window breaks the protocol.

        Raises:
            ValueError: The host sent more than it had credit for.
        """
        if len(self.input) + len(data) > frames.WINDOW:
            raise ValueError("more input than the credit given")
        self.input += data

    def push_input(self) -> int:
        """Write what the program takes now; return credit that is worth giving back."""
        if self.stdin < 0:
            self.input.clear()
            return 0
        try:
            while self.input:
                written = os.write(self.stdin, self.input[: frames.MAX_DATA])
                self._line_begun = self.input[written - 1] != _NEWLINE
                del self.input[:written]
                self._taken += written
            if self.input_over:
                self._end_input()
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self._drop_input()
        except OSError as error:
            if error.errno != errno.EIO:  # the other side of the terminal is closed
                raise
            self._drop_input()
        give = self._taken if self._taken >= frames.WINDOW // 2 else 0
        self._taken -= give
        return give

    @property
    def has_input(self) -> bool:
        """Whether anything is left to tell on standard input: bytes, or its end."""
        return bool(self.input) or self.input_over

    def pull(self, stream: int) -> list[bytes]:
        """Return what a stream holds now, as far as there is credit; close it at its end."""
        output = self.outputs[stream]
        found: list[bytes] = []
        while output.descriptor >= 0 and output.credit:
            try:
                data = os.read(output.descriptor, min(output.credit, frames.MAX_DATA))
            except BlockingIOError:
                if self.ended is not None:  # descendants may hold it open; the program is over
                    self._close(output)
                break
            except OSError as error:
                if not (self._on_terminal and error.errno == errno.EIO):
                    raise
                # Nobody holds the terminal. While the program lives it may open it anew, and our
                # closing it would be a hang-up that ends the program.
                self._drop_input()
                self._left = self.ended is None
                if self._left:
                    break
                data = b""
            if not data:
                self._close(output)
                break
            output.credit -= len(data)
            found.append(data)
        if self._killed and self.ended is not None and not output.credit:
            self._close(output)  # who asked for the kill may read no more, and waits for the end
        return found

    def takes(self, stream: int) -> bool:
        """Whether more of a stream can be forwarded as soon as it comes."""
        held = stream == frames.RESULT and bool(self.held)
        return self.outputs[stream].credit > 0 and not held and not self._left

    def drained(self, stream: int) -> bool:
        """Whether the last ``pull`` left nothing behind for want of credit."""
        output = self.outputs[stream]
        return output.descriptor < 0 or output.credit > 0

    def read_report(self) -> None:
        """Take what the keeper wrote: the guest's process id, then how it ended."""
        if self.report < 0:
            return
        try:
            text = os.read(self.report, frames.MAX_DATA)
        except BlockingIOError:
            return
        if not text:  # all is said, or there is no keeper
            self._close_report()
            self._signal_early(self.child)
        self._report_text += text
        for line in self._report_text.splitlines():
            said = json.loads(line)
            if "pid" in said:
                self.guest = said["pid"]
                self._signal_early(self.guest)
            else:
                self.ended = said

    def child_ended(self, status: int) -> None:
        """Note that the direct child was reaped; without a report that is the end."""
        self.read_report()
        self.child = 0
        if self.ended is None:
            if self.guest:
                # The keeper was killed from inside: what it kept is the agent's to end.
                keeper.kill_below(self.guest)
                _kill(self.guest, signal.SIGKILL)
            self.ended = keeper.ended(status)

    def signal(self, number: int) -> None:
        """Send a signal to the program, if it still runs."""
        if self.ended is not None:
            return
        if self.report >= 0 and not self.guest:
            self._early.append(number)  # the keeper, which it would end, has not told yet whom
        elif target := self.guest or self.child:
            _kill(target, number)

    def _signal_early(self, target: int) -> None:
        """Send what was to be sent before it was known to whom."""
        for number in self._early if target else ():
            _kill(target, number)
        self._early.clear()

    def hold(self, held: bool) -> None:
        """Send no output for now, or send it again."""
        for output in self.outputs.values():
            output.hold(held)

    def resize(self, columns: int, rows: int) -> None:
        """Set the size of the program's terminal, if it has one and still holds it.

        Raises:
            ValueError: It never had one.
        """
        if not self._on_terminal:
            raise ValueError("asked to resize what is no terminal")
        if (descriptor := self.outputs[frames.STDOUT].descriptor) >= 0:
            terminals.resize(descriptor, columns, rows)

    def kill(self) -> None:
        """End the program and all its descendants; what the host has no room for is dropped."""
        self._killed = True
        if self.child and self.report < 0 and not self.guest:
            # Without a keeper, for which no process was left.
            keeper.kill_below(self.child)
            _kill(self.child, signal.SIGKILL)
        elif self.child:
            if self.guest:
                keeper.stop(self.guest)  # or the keeper must wait for its turn in a fork bomb
            _kill(self.child, signal.SIGTERM)
            _kill(self.child, signal.SIGCONT)  # in case a guest stopped it

    @property
    def finished(self) -> bool:
        """Whether the program ended and all its output was sent."""
        done = all(output.descriptor < 0 for output in self.outputs.values())
        return self.ended is not None and done and not self.held

    def close(self) -> None:
        """Give back every descriptor."""
        self._close_stdin()
        self._close_report()
        for output in self.outputs.values():
            self._close(output)

    def _end_input(self) -> None:
        """Tell the program that its input has ended, once all of it was written.

        Raises:
            BlockingIOError: A terminal takes nothing now; it is tried again.
        """
        if self._on_terminal:
            # Within a line the first only hands over what stands there.
            for _ in range(1 + self._line_begun):
                os.write(self.stdin, terminals.END_OF_INPUT)
                self._line_begun = False
        self._close_stdin()

    def _drop_input(self) -> None:
        """Drop what the program will never read."""
        self._taken += len(self.input)
        self.input.clear()
        self._close_stdin()

    def _close_report(self) -> None:
        self.report = self._shut(self.report)

    def _close_stdin(self) -> None:
        self.stdin = self._shut(self.stdin)

    def _close(self, output: Output) -> None:
        output.descriptor = self._shut(output.descriptor)

    def _shut(self, descriptor: int) -> int:
        """Close a descriptor that is open; return what stands for a closed one."""
        if descriptor >= 0:
            self._closing(descriptor)
            os.close(descriptor)
        return _NO_MORE


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # ended and reaped meanwhile
