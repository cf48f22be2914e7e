"""The process that seals a sandbox's channel: it alone holds the keys of its sessions.

It stands between PID 1 and whoever relays the channel, a fork of PID 1 that forks nothing itself:
guests are forks of PID 1, whose memory never held a key. Like PID 1 it cannot be traced, runs no
guest code and opens no path that guests can shape. Guests may kill it, which ends their sandbox.
"""

from __future__ import annotations

import os
import select
import socket
from typing import Any

from sandbox_sdk.agent import frames, guest, seal
from sandbox_sdk.agent.sealed import Session
from sandbox_sdk.agent.sodium import Refused, Sodium

LIBRARY = os.path.join(os.path.dirname(__file__), "../../sodium.so")
"""libsodium, in the agent's folder; there only if the host has channels sealed."""

_OF_SERVERS = frozenset({frames.HOLD, frames.FLOW, frames.DETACH})

_LARGEST_READ = 256 * 1024
_MOST_HELD = 1024 * 1024
"""Bytes held for an end that does not read; then no more is read for it."""


def start(channel: socket.socket, said: dict[str, Any], began: bytes) -> tuple[socket.socket, int]:
    """Fork it.

    Args:
        channel: Of PID 1, which has no more use of it.
        said: What the host said in ``SEAL``: the ``seal.Subject`` with its bytes in hexadecimal.
        began: Bytes that came on the channel behind it.

    Returns:
        The channel to it, and its process id.

    Raises:
        OSError: No process is left.
    """
    subject = seal.Subject(
        said["sandbox"],
        bytes.fromhex(said["template"]),
        bytes.fromhex(said["policy"]),
        tuple(map(bytes.fromhex, said["owners"])),
    )
    ours, its = socket.socketpair()
    child = os.fork()
    if child == 0:
        try:
            guest.close_all_but([channel.fileno(), its.fileno()])
            Sealer(channel, its, subject, LIBRARY).serve(began)
        finally:
            os._exit(0)  # an exception in a child must not unwind into the agent
    its.close()
    channel.close()
    return ours, child


class _End:
    """One of the two ends: what came, as frames, and what waits to be sent."""

    def __init__(self, sock: socket.socket, longest: int) -> None:
        self.socket = sock
        self.splitter = frames.Splitter(longest)
        self.waiting = bytearray()

    def receive(self) -> list[bytes] | None:
        """Return the frames that came; ``None`` at the end."""
        try:
            data = self.socket.recv(_LARGEST_READ)
        except BlockingIOError:
            return []
        except ConnectionError:
            return None
        return self.splitter.feed(data) if data else None

    def flush(self) -> None:
        """Send what can be sent now."""
        try:
            while self.waiting:
                sent = self.socket.send(self.waiting[: frames.MAX_FRAME])
                del self.waiting[:sent]
        except BlockingIOError:
            return


class _Line:
    """What one client and PID 1 say to each other; number 0 is a client without a server.

    Attributes:
        begun: A handshake that lacks the proof.
        session: The keys, once they were agreed on.
    """

    def __init__(self) -> None:
        self.begun: seal.AgentHandshake | None = None
        self.session: Session | None = None
        self._splitter = frames.Splitter(frames.MAX_FRAME_IN)

    def begin(self, session: Session) -> None:
        """Go on with new keys."""
        self.session = session
        # Half a frame of the session before is not the beginning of one of this.
        self._splitter = frames.Splitter(frames.MAX_FRAME_IN)

    def open(self, sealed: bytes) -> list[bytes]:
        """Return the frames that are whole now.

        Raises:
            Refused: There is no session, or these bytes are not of it; then it is over.
        """
        if self.session is None:
            raise Refused("sealed bytes where no session is")
        try:
            return self._splitter.feed(self.session.open(sealed))
        except ValueError:
            self.session = None  # nothing after it can be trusted
            raise


class Sealer:
    """The relay.

    Args:
        outside: The channel, to whoever relays it.
        inside: To PID 1.
        subject: What the host said of this sandbox.
        library: A file that holds libsodium.

    Raises:
        OSError: It holds none.
    """

    def __init__(
        self, outside: socket.socket, inside: socket.socket, subject: seal.Subject, library: str
    ) -> None:
        for each in (outside, inside):
            each.setblocking(False)
        self._outside = _End(outside, frames.MAX_FRAME_IN)
        self._inside = _End(inside, frames.MAX_FRAME_IN)
        self._sodium = Sodium(library)
        self._subject = subject
        self._opened = 0
        self._lines: dict[int, _Line] = {}

    def serve(self, began: bytes = b"") -> None:
        """Relay until either end hangs up.

        Args:
            began: What came from outside before.

        Raises:
            ValueError: What came breaks the protocol.
        """
        self._take(self._outside, self._outside.splitter.feed(began))
        ends = {end.socket.fileno(): end for end in (self._outside, self._inside)}
        poll = select.poll()
        while True:
            for descriptor, end in ends.items():
                poll.register(descriptor, self._events(end))
            for descriptor, event in poll.poll():
                end = ends[descriptor]
                if event & select.POLLIN:
                    found = end.receive()
                    if found is None:
                        return
                    self._take(end, found)
                elif event & ~select.POLLOUT:
                    return  # it has hung up
                end.flush()

    def _events(self, end: _End) -> int:
        """What to wait for at an end, besides its hanging up."""
        other = self._inside if end is self._outside else self._outside
        reads = select.POLLIN if len(other.waiting) < _MOST_HELD else 0
        return reads | (select.POLLOUT if end.waiting else 0)

    def _take(self, end: _End, found: list[bytes]) -> None:
        if end is self._inside:
            self._take_inside(found)
            return
        for frame in found:
            self._take_outside(frames.decode(frame))
        self._inside.flush()

    def _take_inside(self, found: list[bytes]) -> None:
        """Seal what PID 1 says to a client, as far as it came at once in one piece.

        What it says to the server stays as it is, and where it is.
        """
        said: dict[int, bytearray] = {}
        for data in found:
            frame = frames.decode(data)
            if frame.kind == frames.BUSY:
                self._seal(said)
                said = {}
                self._send(0, data)
                continue
            relayed = frame.kind == frames.RELAY
            number, inner = (frame.exchange, frame.body) if relayed else (0, data)
            said.setdefault(number, bytearray()).extend(frames.delimit(inner))
        self._seal(said)

    def _seal(self, said: dict[int, bytearray]) -> None:
        for number, data in said.items():
            line = self._lines.get(number)
            if line is not None and line.session is not None:
                sealed = line.session.seal(bytes(data))
                self._send(number, frames.encode(frames.SEALED, body=sealed))

    def _take_outside(self, frame: frames.Frame) -> None:
        if frame.kind in _OF_SERVERS:
            if frame.kind == frames.DETACH:
                self._lines.pop(frame.exchange, None)
            self._inside.waiting += frames.delimit(frames.encode(*frame))
            return
        relayed = frame.kind == frames.RELAY
        number, said = (frame.exchange, frames.decode(frame.body)) if relayed else (0, frame)
        try:
            self._take_said(number, said)
        except Refused as error:
            # Whoever may not open a sandbox must not be able to end it either.
            self._send(number, frames.encode(frames.REFUSED, body=str(error).encode()))

    def _take_said(self, number: int, said: frames.Frame) -> None:
        """Take what a client sent.

        Raises:
            Refused: It may not, or it was changed on the way.
        """
        line = self._lines.setdefault(number, _Line())
        if said.kind == frames.OPENING:
            opening = seal.Opening.decode(said.body)
            session = self._opened + 1
            line.begun = seal.AgentHandshake(self._sodium, self._subject, opening, session)
            self._opened = session
            self._send(number, frames.encode(frames.ANSWER, body=line.begun.answer.encode()))
        elif said.kind == frames.PROOF and line.begun is not None:
            begun, line.begun = line.begun, None
            line.begin(begun.finish(said.body))
        elif said.kind == frames.SEALED:
            for whole in line.open(said.body):
                relay = frames.encode(frames.RELAY, number, body=whole) if number else whole
                self._inside.waiting += frames.delimit(relay)
        else:
            raise Refused(f"a frame of kind {said.kind} where none belongs")

    def _send(self, number: int, frame: bytes) -> None:
        frame = frames.encode(frames.RELAY, number, body=frame) if number else frame
        self._outside.waiting += frames.delimit(frame)
        self._outside.flush()
