"""Who vouches for the sandboxes of this process, where their channels are sealed.

The worker's signing key lives in this process only: no launcher, zygote or sandbox has it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import attrs

from sandbox_sdk.agent import frames
from sandbox_sdk.agent.seal import Answer, Opening, Subject, vouch
from sandbox_sdk.agent.sodium import Refused, Sodium
from sandbox_sdk.crypto_utils import sodium
from sandbox_sdk.crypto_utils.identities import WORKER, identity
from sandbox_sdk.crypto_utils.keys import SigningKey
from sandbox_sdk.engine.channel import SocketChannel
from sandbox_sdk.engine.direct import Direct
from sandbox_sdk.errors import ProtocolError, SandboxError, StateError
from sandbox_sdk.values import Isolation, Limit, SandboxSpec


class Worker:
    """Seals channels, and vouches for the agent at their other end.

    Args:
        library: A file with libsodium, which the sealing process of a sandbox loads.
        key: The signing key, by whose public half clients know this worker.

    Attributes:
        library: The file.
        public: The public half, as a line of an SSH public key file.

    Raises:
        OSError: The library holds no libsodium.
    """

    def __init__(self, library: Path, key: SigningKey) -> None:
        self.library = library
        self.public = key.public.to_text()
        self._sodium = Sodium(str(library))
        self._key = key

    @classmethod
    def of(cls, keys: Path) -> Self:
        """Return the worker of a folder of keys, its key made at its first use; reads the disk.

        Raises:
            ConfigError: The key's file is not this user's alone, or holds no key.
            StateError: The key cannot be written, or libsodium not be loaded.
        """
        library = sodium.library()
        try:
            return cls(library, identity(keys, WORKER))
        except OSError as error:
            if isinstance(error, SandboxError):
                raise
            raise StateError(
                f"libsodium cannot be loaded: {error}; install the package pynacl again"
            ) from error

    async def seal(self, channel: SocketChannel, subject: Subject) -> SealingChannel:
        """Have the agent seal a channel, for these owners only; return what is left of it.

        Args:
            channel: To the agent, which has had its go.
            subject: What the agent and the owners are to agree on.

        Raises:
            ConnectionError: The agent is gone.
        """
        if (ahead := channel.take_ahead()) is not None:
            ahead.close()  # its socket would be a second way out
        said = {
            "sandbox": subject.sandbox,
            "template": subject.template.hex(),
            "policy": subject.policy.hex(),
            "owners": [owner.hex() for owner in subject.owners],
        }
        await channel.send(frames.encode(frames.SEAL, body=json.dumps(said).encode()))
        return SealingChannel(self, channel, subject)

    def vouch(self, subject: Subject, opening: bytes, answer: bytes) -> bytes:
        """Return what an agent of ours answered, vouched for.

        Raises:
            Refused: One of them is no such message.
        """
        began, answered = Opening.decode(opening), Answer.decode(answer)
        return vouch(self._sodium, self._key.reveal(), subject, began, answered).encode()


class SealingChannel:
    """A channel that carries sealed bytes past this process, and its word for the agent."""

    def __init__(self, worker: Worker, inner: SocketChannel, subject: Subject) -> None:
        """Made by ``Worker.seal``."""
        self._worker = worker
        self._inner = inner
        self._subject = subject
        self._openings: dict[int, bytes] = {}  # by the session of the server that carries it

    def take_ahead(self) -> Direct | None:
        """Return ``None``: a context beside the channel would not be sealed."""

    async def send(self, frame: bytes) -> None:
        """Send a frame; see ``Channel``."""
        session, said = _said(frame)
        if said.kind == frames.OPENING:
            self._note(session, said.body)
        elif said.kind == frames.DETACH:
            self._openings.pop(said.exchange, None)
        await self._inner.send(frame)

    def _note(self, session: int, opening: bytes) -> None:
        """Keep an opening until it is answered; what is none is refused inside."""
        try:
            Opening.decode(opening)
        except Refused:
            self._openings.pop(session, None)
        else:
            self._openings[session] = opening

    async def receive(self) -> bytes:
        """Return the next frame; see ``Channel``."""
        frame = await self._inner.receive()
        session, said = _said(frame)
        if said.kind != frames.ANSWER:
            return frame
        opening = self._openings.pop(session, None)
        if opening is None:
            # The second of two that were begun at once: which of them it answers is not known.
            refused = frames.encode(frames.REFUSED, body=b"a second opening before the answer")
            return frames.encode(frames.RELAY, session, body=refused) if session else refused
        try:
            vouched = self._worker.vouch(self._subject, opening, said.body)
        except Refused as error:
            raise ProtocolError(f"the agent broke the protocol: {error}") from None
        answer = frames.encode(frames.ANSWER, body=vouched)
        return frames.encode(frames.RELAY, session, body=answer) if session else answer


def _said(frame: bytes) -> tuple[int, frames.Frame]:
    """Return the session of a frame, and what is in its envelope.

    Raises:
        ProtocolError: Nothing is.
    """
    decoded = frames.decode(frame)
    if decoded.kind != frames.RELAY:
        return 0, decoded
    try:
        return decoded.exchange, frames.decode(decoded.body)
    except ValueError as error:
        raise ProtocolError(f"an envelope without a frame: {error}") from None


def subject_of(
    sandbox_id: str, spec: SandboxSpec, isolation: Isolation, limits: Sequence[Limit]
) -> Subject:
    """Return what is to be vouched for of a sandbox: what it is made of, and its rules.

    Of nothing but what its owner asked for and was told, so that both ends find the same.

    Args:
        sandbox_id: Its id.
        spec: How it was asked for, its template pinned.
        isolation: What is in force.
        limits: Its limits.
    """
    resources = {name: float(value) for name, value in attrs.asdict(spec.resources).items()}
    held = [[limit.name, _number(limit.value), limit.held_by, limit.note] for limit in limits]
    asked = [spec.security_level, spec.waive, spec.network, spec.runtime, resources]
    return Subject(
        sandbox_id,
        _digest([spec.template, spec.packages, spec.preload]),
        _digest([asked, attrs.asdict(isolation), held]),
        tuple(map(bytes.fromhex, spec.owners)),
    )


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)


def _digest(value: object) -> bytes:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()
