"""One client's session with the agent of one sandbox, which outlives a lost connection."""

from __future__ import annotations

import anyio


class Line:
    """What the agent sent to one client and it has not yet, and how much came of it.

    Attributes:
        number: The session, as the agent knows it.
        token: What the client calls it.
        owner: Who the client is.
        received: How many frames came from the client.
        kept: Bytes that wait for the client, or for its word that it has them.
        busy: Whether anything runs in it.
        held: Whether the agent was told to hold its output.
        over: Whether it was ended.
        turn: Rises with every connection that serves it.
        changed: Set when there is more to send, or it is over; renewed by then.
    """

    def __init__(self, number: int, token: str, owner: str) -> None:
        self.number = number
        self.token = token
        self.owner = owner
        self.received = 0
        self.kept = 0
        self.busy = False
        self.held = False
        self.over = False
        self.turn = 0
        self.changed = anyio.Event()
        self._frames: list[bytes] = []
        self._first = 0

    def take_turn(self) -> int:
        """Begin to serve it over another connection; the one before has had its turn."""
        self.turn += 1
        self._wake()
        return self.turn

    def keep(self, frame: bytes) -> None:
        """Keep a frame for the client."""
        self._frames.append(frame)
        self.kept += len(frame)
        self._wake()

    def forget(self, count: int) -> None:
        """Drop what the client has.

        Args:
            count: How many frames of this line it ever got.

        Raises:
            ValueError: It cannot have so many, or had more before.
        """
        gone = count - self._first
        if not 0 <= gone <= len(self._frames):
            raise ValueError(f"{count} frames acknowledged of {self._first + len(self._frames)}")
        self.kept -= sum(map(len, self._frames[:gone]))
        del self._frames[:gone]
        self._first = count

    def after(self, count: int) -> list[bytes]:
        """Return the frames that follow the first so many; none of them was dropped."""
        return self._frames[count - self._first :]

    def drop(self) -> None:
        """End it."""
        self.over = True
        self.busy = False
        self._wake()

    def _wake(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()
