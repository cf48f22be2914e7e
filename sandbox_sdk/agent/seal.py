"""A sealed channel: who may open it, and the keys of one session, for both of its ends.

Three messages make a session between the SDK process and the agent of a sandbox, over whatever
relays them:

    client -> agent    OPENING   ephemeral key, nonce, owner key
    agent  -> client   ANSWER    ephemeral key, nonce, session number; the worker adds what it
                                 knows of the sandbox, and signs the transcript
    client -> agent    PROOF     the owner's signature of the transcript

The transcript holds all of that. The worker's signature tells the client that this agent is in
that sandbox, and who else may open it; the owner's tells the agent that the caller may. The keys
come from both ephemeral keys and the transcript, so that no session's keys open another's.
What follows is ``sealed.Session``.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from typing import NamedTuple

from sandbox_sdk.agent.sealed import Session
from sandbox_sdk.agent.sodium import KEY_BYTES, Refused, Sodium

VERSION = b"SBXS\x01"
NONCE_BYTES = 32

_TRANSCRIPT = b"sandbox-sdk sealed channel, version 1"
_BY_WORKER, _BY_OWNER = b"worker", b"owner"
_LENGTH = struct.Struct("!I")
_NUMBER = struct.Struct("!Q")
_ANSWER_BYTES = KEY_BYTES + NONCE_BYTES + _NUMBER.size
OPENING_BYTES = len(VERSION) + KEY_BYTES + NONCE_BYTES + KEY_BYTES


class Subject(NamedTuple):
    """What a session is with, as the worker knows it.

    Attributes:
        sandbox: The sandbox's id.
        template: Digest of what it was made of, 32 bytes.
        policy: Digest of the rules it stands under, 32 bytes.
        owners: The public keys whose holders may open sessions, in order.
    """

    sandbox: str
    template: bytes
    policy: bytes
    owners: tuple[bytes, ...]

    def encode(self) -> bytes:
        """Return it as bytes that no other subject has."""
        parts = (self.sandbox.encode(), self.template, self.policy, b"".join(self.owners))
        return b"".join(map(_part, parts))


class Opening(NamedTuple):
    """The client's first message."""

    key: bytes
    nonce: bytes
    owner: bytes

    def encode(self) -> bytes:
        """Return it as it is sent."""
        return VERSION + self.key + self.nonce + self.owner

    @classmethod
    def decode(cls, data: bytes) -> Opening:
        """Return what was sent.

        Raises:
            Refused: It is none, or of another version.
        """
        if not data.startswith(VERSION) or len(data) != OPENING_BYTES:
            raise Refused("no opening of a sealed channel of this version")
        return cls(*_cut(data[len(VERSION) :], KEY_BYTES, NONCE_BYTES, KEY_BYTES))


class Answer(NamedTuple):
    """The agent's message."""

    key: bytes
    nonce: bytes
    session: int

    def encode(self) -> bytes:
        """Return it as it is sent."""
        return self.key + self.nonce + _NUMBER.pack(self.session)

    @classmethod
    def decode(cls, data: bytes) -> Answer:
        """Return what was sent.

        Raises:
            Refused: It is none.
        """
        if len(data) != _ANSWER_BYTES:
            raise Refused("no answer to the opening of a sealed channel")
        key, nonce, number = _cut(data, KEY_BYTES, NONCE_BYTES, _NUMBER.size)
        return cls(key, nonce, _NUMBER.unpack(number)[0])


class Vouched(NamedTuple):
    """The agent's message as it reaches the client: with what the worker adds."""

    answer: Answer
    subject: Subject
    signature: bytes

    def encode(self) -> bytes:
        """Return it as it is sent."""
        template, policy = self.subject.template.hex(), self.subject.policy.hex()
        said = {
            "answer": self.answer.encode().hex(),
            "sandbox": self.subject.sandbox,
            "template": template,
            "policy": policy,
            "owners": [owner.hex() for owner in self.subject.owners],
            "signature": self.signature.hex(),
        }
        return json.dumps(said).encode()

    @classmethod
    def decode(cls, data: bytes) -> Vouched:
        """Return what was sent.

        Raises:
            Refused: It is none.
        """
        try:
            said = json.loads(data)
            subject = Subject(
                str(said["sandbox"]),
                bytes.fromhex(said["template"]),
                bytes.fromhex(said["policy"]),
                tuple(bytes.fromhex(owner) for owner in said["owners"]),
            )
            answer = Answer.decode(bytes.fromhex(said["answer"]))
            return cls(answer, subject, bytes.fromhex(said["signature"]))
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise Refused(f"no answer that a worker vouches for: {error!r}") from None


def transcript(subject: Subject, opening: Opening, answer: Answer) -> bytes:
    """Return the digest of all that both ends said, and of what it was about."""
    said = (_TRANSCRIPT, subject.encode(), opening.encode(), answer.encode())
    return hashlib.sha256(b"".join(map(_part, said))).digest()


def vouch(
    sodium: Sodium, worker_seed: bytes, subject: Subject, opening: Opening, answer: Answer
) -> Vouched:
    """Return an agent's answer with the worker's signature of the transcript.

    Args:
        sodium: libsodium.
        worker_seed: The worker's signing key.
        subject: What the worker knows of the sandbox.
        opening: What the client sent.
        answer: What the agent said, which the worker has of the agent itself.
    """
    digest = transcript(subject, opening, answer)
    return Vouched(answer, subject, sodium.sign(worker_seed, _BY_WORKER + digest))


class ClientHandshake:
    """The client's side.

    Attributes:
        opening: The first message.
    """

    def __init__(self, sodium: Sodium, owner_seed: bytes, owner: bytes) -> None:
        """Begin a session.

        Args:
            sodium: libsodium.
            owner_seed: The caller's signing key.
            owner: Its public half.
        """
        self._sodium = sodium
        self._owner_seed = owner_seed
        self._secret, public = sodium.keypair()
        self.opening = Opening(public, os.urandom(NONCE_BYTES), owner)

    def finish(self, vouched: Vouched, workers: tuple[bytes, ...]) -> tuple[bytes, Session]:
        """Check the answer; return the proof to send, and the session.

        Args:
            vouched: The answer, whose subject the caller has compared with what is expected.
            workers: The worker keys that are trusted.

        Raises:
            Refused: No trusted worker vouches for this agent in this sandbox.
        """
        digest = transcript(vouched.subject, self.opening, vouched.answer)
        signed, verify = _BY_WORKER + digest, self._sodium.verify
        if not any(verify(worker, signed, vouched.signature) for worker in workers):
            raise Refused("no worker that is trusted vouches for this end of the channel")
        to_agent, to_client = _keys(self._sodium, self._secret, vouched.answer.key, digest)
        proof = self._sodium.sign(self._owner_seed, _BY_OWNER + digest)
        return proof, Session(self._sodium, writes=to_agent, reads=to_client)


class AgentHandshake:
    """The agent's side.

    Attributes:
        answer: The message to send back.
    """

    def __init__(self, sodium: Sodium, subject: Subject, opening: Opening, session: int) -> None:
        """Answer an opening.

        Args:
            sodium: libsodium.
            subject: What the host said of this sandbox.
            opening: The client's message.
            session: How many sessions this agent has had, with this one.

        Raises:
            Refused: The caller's key is not one of the owners'.
        """
        if opening.owner not in subject.owners:
            raise Refused("the caller's key is not one that may open this sandbox")
        self._sodium = sodium
        self._owner = opening.owner
        secret, public = sodium.keypair()
        self.answer = Answer(public, os.urandom(NONCE_BYTES), session)
        self._digest = transcript(subject, opening, self.answer)
        self._to_agent, self._to_client = _keys(sodium, secret, opening.key, self._digest)

    def finish(self, proof: bytes) -> Session:
        """Check that the caller holds the owner's key; return the session.

        Raises:
            Refused: It does not.
        """
        if not self._sodium.verify(self._owner, _BY_OWNER + self._digest, proof):
            raise Refused("the caller does not hold the key that may open this sandbox")
        return Session(self._sodium, writes=self._to_client, reads=self._to_agent)


def _keys(sodium: Sodium, secret: bytes, public: bytes, digest: bytes) -> tuple[bytes, bytes]:
    """Return the keys of what goes to the agent, and to the client."""
    shared = sodium.shared(secret, public)
    both = hashlib.blake2b(digest, key=shared, digest_size=2 * KEY_BYTES, person=b"sbx.channel")
    return both.digest()[:KEY_BYTES], both.digest()[KEY_BYTES:]


def _part(data: bytes) -> bytes:
    return _LENGTH.pack(len(data)) + data


def _cut(data: bytes, *sizes: int) -> list[bytes]:
    parts: list[bytes] = []
    for size in sizes:
        parts.append(data[:size])
        data = data[size:]
    return parts
