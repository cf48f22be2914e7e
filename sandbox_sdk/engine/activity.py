"""When a sandbox was last used, which is what idleness is judged by."""

from __future__ import annotations

import asyncio

import attrs

from sandbox_sdk.agent import frames


def _now() -> float:
    # anyio asks which library runs, which a callback of the loop, as no task, may not know.
    return asyncio.get_running_loop().time()


@attrs.define(eq=False)
class Activity:
    """When a sandbox was last used, and which calls are in flight.

    Attributes:
        calls: Exchanges that run something: a kept context does from its input to its result.
        last: When the last frame passed, on the event loop's clock.
    """

    calls: set[int] = attrs.field(factory=set)
    last: float = attrs.field(factory=_now)

    def begin(self, exchange: int) -> None:
        """Note that an exchange was given something to do."""
        self.last = _now()
        self.calls.add(exchange)

    def end(self, exchange: int) -> None:
        """Note that an exchange has done what it was given."""
        self.last = _now()
        self.calls.discard(exchange)

    def sent(self, frame: frames.Frame) -> None:
        """Take a frame to the agent into account."""
        if frame.kind in (frames.OPEN, frames.DATA):
            self.begin(frame.exchange)
        else:
            self.last = _now()

    def received(self, frame: frames.Frame) -> None:
        """Take a frame from the agent into account."""
        if frame.kind == frames.END or (
            frame.kind == frames.DATA and frame.stream == frames.RESULT
        ):
            self.end(frame.exchange)
        elif frame.kind == frames.BUSY:
            # Of a server's session; exchanges of the host itself are numbered from 0 upward.
            change = self.begin if frames.decode_number(frame.body) else self.end
            change(-frame.exchange)
        else:
            self.last = _now()
