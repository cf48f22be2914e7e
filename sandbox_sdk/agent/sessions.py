"""Sessions: the exchanges of several clients on one channel, kept apart.

A server carries what each client says in ``RELAY`` frames, whose body it need not understand. An
exchange of a session is known to the agent by ``session * 2**32 + number``; session 0 is the host
that started the sandbox.
"""

from __future__ import annotations

from sandbox_sdk.agent import frames

_NUMBERS = 1 << 32

# The settings, and the context that was forked ahead, are the starting host's alone.
_OF_CLIENTS = frozenset(
    {
        frames.OPEN,
        frames.DATA,
        frames.EOF,
        frames.CREDIT,
        frames.SIGNAL,
        frames.KILL,
        frames.RESIZE,
        frames.VARIABLES,
    }
)


def session_of(exchange: int) -> int:
    """Return the session of an exchange."""
    return exchange // _NUMBERS


def unwrap(frame: frames.Frame) -> frames.Frame:
    """Return what a client sent, with the number by which the agent knows its exchange.

    Raises:
        ValueError: It is no frame that a client may send.
    """
    inner = frames.decode(frame.body)
    if frame.exchange == 0 or inner.kind not in _OF_CLIENTS:
        raise ValueError(f"frame of kind {inner.kind} in session {frame.exchange}")
    return inner._replace(exchange=frame.exchange * _NUMBERS + inner.exchange)


def wrap(kind: int, exchange: int, stream: int, body: bytes) -> bytes:
    """Return a frame for whoever the exchange is of."""
    session, number = divmod(exchange, _NUMBERS)
    frame = frames.encode(kind, number, stream, body)
    return frames.encode(frames.RELAY, session, body=frame) if session else frame


class Sessions:
    """What the agent keeps of its sessions.

    Attributes:
        held: Those whose output is not wanted now.
    """

    def __init__(self) -> None:
        self.held: set[int] = set()
        self._calls: dict[int, set[int]] = {}

    def took(self, frame: frames.Frame) -> bool:
        """Note what a client gave to do; return whether its session is busy from now on."""
        session = session_of(frame.exchange)
        if not session or frame.kind not in (frames.OPEN, frames.DATA):
            return False
        calls = self._calls.setdefault(session, set())
        calls.add(frame.exchange)
        return len(calls) == 1

    def sent(self, kind: int, exchange: int, stream: int) -> bool:
        """Note what is sent to a client; return whether its session is idle from now on."""
        if kind != frames.END and (kind, stream) != (frames.DATA, frames.RESULT):
            return False
        session = session_of(exchange)
        calls = self._calls.get(session)
        if calls is None or exchange not in calls:
            return False
        calls.remove(exchange)
        if calls:
            return False
        del self._calls[session]
        return True
