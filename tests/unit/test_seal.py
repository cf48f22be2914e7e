"""The handshake and the framing of a sealed channel, with both ends in one process."""

from __future__ import annotations

import importlib.util
import secrets
from collections.abc import Callable

import pytest
from nacl.signing import SigningKey, VerifyKey

from sandbox_sdk.agent.seal import (
    VERSION,
    AgentHandshake,
    Answer,
    ClientHandshake,
    Opening,
    Subject,
    Vouched,
    vouch,
)
from sandbox_sdk.agent.sealed import LONGEST_CHUNK, Session
from sandbox_sdk.agent.sodium import Refused, Sodium

OWNER, WORKER, STRANGER = SigningKey.generate(), SigningKey.generate(), SigningKey.generate()
SMALL_ORDER = [bytes(32), b"\x01" + bytes(31)]


@pytest.fixture(scope="module")
def sodium() -> Sodium:
    spec = importlib.util.find_spec("nacl._sodium")
    assert spec is not None
    assert spec.origin is not None
    return Sodium(spec.origin)


def subject(**other: object) -> Subject:
    known = {
        "sandbox": "sb_1",
        "template": b"t" * 32,
        "policy": b"p" * 32,
        "owners": (bytes(OWNER.verify_key),),
    }
    return Subject(**{**known, **other})  # type: ignore[arg-type]


def met(
    sodium: Sodium, *, client_sees: Subject | None = None, worker: SigningKey = WORKER
) -> tuple[Session, Session]:
    """Return the client's and the agent's end of a session."""
    client = ClientHandshake(sodium, bytes(OWNER), bytes(OWNER.verify_key))
    agent = AgentHandshake(sodium, subject(), Opening.decode(client.opening.encode()), 1)
    vouched = vouch(sodium, bytes(worker), subject(), client.opening, agent.answer)
    seen = Vouched.decode(vouched.encode())._replace(subject=client_sees or subject())
    trusted = (bytes(STRANGER.verify_key), bytes(WORKER.verify_key))
    proof, session = client.finish(seen, trusted)
    return session, agent.finish(proof)


@pytest.mark.parametrize("size", [0, 1, LONGEST_CHUNK, LONGEST_CHUNK + 1, 5 * LONGEST_CHUNK])
def test_both_ends_understand_each_other(sodium: Sodium, size: int) -> None:
    client, agent = met(sodium)
    data = secrets.token_bytes(size)
    assert agent.open(client.seal(data)) == data
    assert client.open(agent.seal(data)) == data
    assert not client.over
    assert client.open(agent.seal(data, last=True)) == data
    assert client.over


def test_bytes_may_come_one_by_one(sodium: Sodium) -> None:
    client, agent = met(sodium)
    sent = client.seal(b"first") + client.seal(b"second", last=True)
    assert b"".join(agent.open(bytes([byte])) for byte in sent) == b"firstsecond"
    assert agent.over


def test_signatures_are_those_of_any_ed25519(sodium: Sodium) -> None:
    signature = sodium.sign(bytes(OWNER), b"message")
    assert signature == OWNER.sign(b"message").signature
    assert VerifyKey(bytes(OWNER.verify_key)).verify(b"message", signature) == b"message"
    assert sodium.verify(bytes(OWNER.verify_key), b"message", signature)
    assert not sodium.verify(bytes(OWNER.verify_key), b"another", signature)
    assert not sodium.verify(bytes(OWNER.verify_key), b"message", signature[:-1])


@pytest.mark.parametrize(
    "change",
    [
        {"sandbox": "sb_2"},
        {"template": b"T" * 32},
        {"policy": b"P" * 32},
        {"owners": (bytes(OWNER.verify_key), bytes(STRANGER.verify_key))},
        {"owners": ()},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_the_worker_did_not_sign_is_refused(sodium: Sodium, change: dict[str, object]) -> None:
    with pytest.raises(Refused, match="vouches"):
        met(sodium, client_sees=subject(**change))


def test_a_worker_that_is_not_trusted_is_refused(sodium: Sodium) -> None:
    with pytest.raises(Refused, match="vouches"):
        met(sodium, worker=OWNER)


def test_only_an_owner_may_open_a_session(sodium: Sodium) -> None:
    stranger = ClientHandshake(sodium, bytes(STRANGER), bytes(STRANGER.verify_key))
    with pytest.raises(Refused, match="not one that may open"):
        AgentHandshake(sodium, subject(), stranger.opening, 1)
    # One who knows the owner's public key, and says it is theirs.
    liar = ClientHandshake(sodium, bytes(STRANGER), bytes(OWNER.verify_key))
    agent = AgentHandshake(sodium, subject(), liar.opening, 1)
    vouched = vouch(sodium, bytes(WORKER), subject(), liar.opening, agent.answer)
    proof, _ = liar.finish(vouched, (bytes(WORKER.verify_key),))
    with pytest.raises(Refused, match="does not hold"):
        agent.finish(proof)


@pytest.mark.parametrize("part", ["key", "nonce", "session"])
def test_who_stands_in_between_is_noticed(sodium: Sodium, part: str) -> None:
    """A relay that puts its own key, nonce or number into the agent's answer."""
    client = ClientHandshake(sodium, bytes(OWNER), bytes(OWNER.verify_key))
    agent = AgentHandshake(sodium, subject(), client.opening, 1)
    vouched = vouch(sodium, bytes(WORKER), subject(), client.opening, agent.answer)
    _, public = sodium.keypair()
    answer = {
        "key": agent.answer._replace(key=public),
        "nonce": agent.answer._replace(nonce=bytes(32)),
        "session": agent.answer._replace(session=2),
    }[part]
    with pytest.raises(Refused, match="vouches"):
        client.finish(vouched._replace(answer=answer), (bytes(WORKER.verify_key),))


@pytest.mark.parametrize("key", SMALL_ORDER)
def test_a_key_that_makes_every_secret_the_same_is_refused(sodium: Sodium, key: bytes) -> None:
    opening = Opening(key, bytes(32), bytes(OWNER.verify_key))
    with pytest.raises(Refused, match="none"):
        AgentHandshake(sodium, subject(), opening, 1)


def test_no_session_opens_what_another_sealed(sodium: Sodium) -> None:
    (first, _), (_, second) = met(sodium), met(sodium)
    with pytest.raises(Refused):
        second.open(first.seal(b"data"))


def test_an_end_does_not_take_its_own_bytes_for_the_other_s(sodium: Sodium) -> None:
    client, _ = met(sodium)
    with pytest.raises(Refused):
        client.open(client.seal(b"data"))


def _flip(data: bytes) -> bytes:
    at = secrets.randbelow(len(data))
    return data[:at] + bytes([data[at] ^ 1 << secrets.randbelow(8)]) + data[at + 1 :]


def _swap(data: bytes) -> bytes:
    header, chunk = data[:24], len(data[24:]) // 2
    return header + data[24 + chunk :] + data[24 : 24 + chunk]


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "flipped": _flip,
    "swapped": _swap,
    "repeated": lambda data: data[: 24 + (len(data) - 24) // 2] + data[24:],
    "left out": lambda data: data[:24] + data[24 + (len(data) - 24) // 2 :],
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_streams_are_refused(sodium: Sodium, name: str) -> None:
    for _ in range(200):
        client, agent = met(sodium)
        sent = client.seal(b"one chunk") + client.seal(b"two chunk")
        try:
            # A length that became longer waits for the rest, which never comes.
            assert len(agent.open(CHANGES[name](sent))) < len(b"one chunktwo chunk")
        except Refused:
            continue


def test_what_was_cut_is_not_over(sodium: Sodium) -> None:
    whole = len(met(sodium)[0].seal(b"data", last=True))
    for end in range(whole):
        client, agent = met(sodium)
        agent.open(client.seal(b"data", last=True)[:end])
        assert not agent.over
    client, agent = met(sodium)
    sent = client.seal(b"", last=True) + client.seal(b"more")
    with pytest.raises(Refused, match="end"):
        agent.open(sent)


@pytest.mark.parametrize(
    "data", [b"", VERSION, b"x" * 101, VERSION + bytes(95), VERSION + bytes(97)]
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(Refused):
        Opening.decode(data)
    with pytest.raises(Refused):
        Answer.decode(data)
    with pytest.raises(Refused):
        Vouched.decode(data)


@pytest.mark.parametrize(
    "text",
    ["{}", "[]", "1", '{"answer": 1}', "[" * 100_000, '{"answer":"","sandbox":"","template":""}'],
)
def test_what_no_worker_says_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        Vouched.decode(text.encode())


def test_a_library_without_libsodium_is_told() -> None:
    with pytest.raises(OSError, match="holds no libsodium"):
        Sodium("libc.so.6")
