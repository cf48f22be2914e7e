"""A channel whose frames only this process and the agent can read."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import anyio
import attrs

from sandbox_sdk.agent import frames
from sandbox_sdk.agent.seal import ClientHandshake, Subject, Vouched
from sandbox_sdk.agent.sealed import Session
from sandbox_sdk.agent.sodium import Refused, Sodium
from sandbox_sdk.backends.base import Ahead, Channel
from sandbox_sdk.errors import IntegrityError, ProtocolError


@attrs.frozen(kw_only=True)
class Trust:
    """What the client brings to a session, and whom it believes.

    Attributes:
        sodium: libsodium.
        owner_seed: The caller's signing key.
        owner: Its public half.
        workers: The keys of workers that are trusted.
        accepts: Says whether a sandbox is the expected one, under the expected rules, and opens
            for the expected owners only; a text is why not.
    """

    sodium: Sodium
    owner_seed: bytes = attrs.field(repr=False)
    owner: bytes
    workers: tuple[bytes, ...]
    accepts: Callable[[Subject], str]


class SealedChannel:
    """A channel over another, which carries nothing but sealed bytes."""

    def __init__(self, inner: Channel, session: Session) -> None:
        """Made by ``open()``.

        Args:
            inner: What carries the bytes.
            session: The keys.
        """
        self._inner = inner
        self._session = session
        self._splitter = frames.Splitter()
        self._received: deque[bytes] = deque()
        # Chunks are read in the order in which they were sealed.
        self._sending = anyio.Lock(fast_acquire=True)

    @classmethod
    async def open(cls, inner: Channel, trust: Trust) -> SealedChannel:
        """Begin a session.

        Args:
            inner: What carries the bytes.
            trust: What the client brings and believes.

        Raises:
            IntegrityError: The other end is not who it should be, or refuses this caller, or what
                came does not belong here.
            ConnectionError: The agent is gone.
        """
        handshake = ClientHandshake(trust.sodium, trust.owner_seed, trust.owner)
        await inner.send(frames.encode(frames.OPENING, body=handshake.opening.encode()))
        body = _body(await inner.receive(), frames.ANSWER)
        try:
            vouched = Vouched.decode(body)
            proof, session = handshake.finish(vouched, trust.workers)
        except Refused as error:
            raise IntegrityError(f"the channel to the sandbox cannot be trusted: {error}") from None
        if unexpected := trust.accepts(vouched.subject):
            raise IntegrityError(f"the sandbox is not the one that was asked for: {unexpected}")
        await inner.send(frames.encode(frames.PROOF, body=proof))
        return cls(inner, session)

    def take_ahead(self) -> Ahead | None:
        """Return ``None``: a context beside the channel would not be sealed."""

    async def send(self, frame: bytes) -> None:
        """Send a frame; see ``Channel``."""
        async with self._sending:
            sealed = self._session.seal(frames.delimit(frame))
            await self._inner.send(frames.encode(frames.SEALED, body=sealed))

    async def receive(self) -> bytes:
        """Return the next frame; see ``Channel``.

        Raises:
            IntegrityError: It was changed on the way.
        """
        while not self._received:
            sealed = _body(await self._inner.receive(), frames.SEALED)
            try:
                self._received.extend(self._splitter.feed(self._session.open(sealed)))
            except Refused as error:
                raise IntegrityError(f"what came from the sandbox was changed: {error}") from None
            except ValueError as error:
                raise ProtocolError(f"the agent broke the protocol: {error}") from None
        return self._received.popleft()


def _body(data: bytes, kind: int) -> bytes:
    """Return what a frame holds.

    Raises:
        IntegrityError: It is another, which whoever carries the channel made, or a refusal.
    """
    try:
        frame = frames.decode(data)
    except ValueError as error:
        raise IntegrityError(f"what came over the sealed channel is no frame: {error}") from None
    if frame.kind == frames.REFUSED:
        said = frame.body[:200].decode(errors="replace")
        raise IntegrityError(f"the sandbox refuses this channel: {said}")
    if frame.kind != kind:
        raise IntegrityError(
            f"a frame of kind {frame.kind} came over the sealed channel where one of {kind} belongs"
        )
    return frame.body
