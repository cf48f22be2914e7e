"""Whatever is done to sealed or signed bytes, nothing of it is accepted."""

from __future__ import annotations

import io
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_sdk.crypto_utils import (
    DataKey,
    Label,
    MasterKey,
    PrivateKey,
    SigningKey,
    SSHSignature,
    seal,
    seal_stream,
    seal_to,
    sign,
    streams,
    unseal,
    unseal_stream,
    unseal_with,
)
from sandbox_sdk.errors import IntegrityError

KEY, OTHER = DataKey.generate(), DataKey.generate()
BOX, SIGNER = PrivateKey.generate(), SigningKey.generate()
SPACE = "sandbox-sdk-test@v1"

labels = st.builds(
    Label,
    tenant=st.text(max_size=9),
    sandbox=st.text(max_size=9),
    type=st.text(max_size=9),
    id=st.text(max_size=9),
    version=st.integers(0, 2**64 - 1),
)


@given(st.binary(max_size=2000), labels, labels)
def test_records_open_with_their_label_only(data: bytes, label: Label, other: Label) -> None:
    sealed = seal(KEY, data, label)
    assert unseal(KEY, sealed, label) == data
    if other != label:
        with pytest.raises(IntegrityError):
            unseal(KEY, sealed, other)


@given(labels, labels)
def test_labels_that_differ_have_different_bytes(first: Label, second: Label) -> None:
    assert (first == second) == (first.encode() == second.encode())


@given(st.binary(min_size=32, max_size=32))
def test_every_master_key_is_read_back(data: bytes) -> None:
    assert MasterKey.parse(MasterKey(data).to_text()) == MasterKey(data)


@given(st.binary(max_size=500))
def test_bytes_of_nobody_open_as_nothing(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        unseal(KEY, data)
    with pytest.raises(IntegrityError):
        list(unseal_stream(KEY, io.BytesIO(data)))
    with pytest.raises(IntegrityError):
        unseal_with(BOX, data)
    with pytest.raises(IntegrityError):
        SSHSignature.parse(data.decode("latin-1"))


@given(st.binary(max_size=300), st.binary(max_size=50))
def test_signatures_are_read_back(message: bytes, other: bytes) -> None:
    found = SSHSignature.parse(sign(SIGNER, message, SPACE))
    assert found.verify(message, SPACE)
    assert found.verify(other, SPACE) == (other == message)


def mutate(dice: random.Random, good: bytes, others: list[bytes]) -> bytes:
    """Return bytes changed as faults and attackers change them."""
    data = bytearray(good)
    at = dice.randrange(len(data))
    kind = dice.randrange(8)
    if kind == 0:  # a bit
        data[at] ^= 1 << dice.randrange(8)
    elif kind == 1:  # a cut, at either end
        data = data[:at] if dice.random() < 0.5 else data[at + 1 :]
    elif kind == 2:  # something more
        data[at:at] = dice.randbytes(dice.randrange(1, 20))
    elif kind == 3:  # something gone
        del data[at : at + dice.randrange(1, 20)]
    elif kind == 4:  # two parts swapped
        size = dice.randrange(1, 30)
        there = dice.randrange(len(data))
        data[at : at + size], data[there : there + size] = (
            data[there : there + size],
            data[at : at + size],
        )
    elif kind == 5:  # a part of another, sealed with the same key
        other = dice.choice(others)
        data[at:] = other[at:]
    elif kind == 6:  # the start of another
        other = dice.choice(others)
        data[:at] = other[:at]
    else:  # noise
        size = dice.randrange(1, 40)
        data[at : at + size] = dice.randbytes(size)
    return bytes(data)


def sealed_stream(data: bytes) -> bytes:
    target = io.BytesIO()
    seal_stream(KEY, io.BytesIO(data), target)
    return target.getvalue()


def accepted(count: int, seed: int) -> dict[str, int]:
    """Return how many of ``count`` mutations were accepted, by what was changed."""
    dice = random.Random(seed)
    label = Label(type="event", id="1", sandbox="sb_1")
    record_siblings = [
        seal(KEY, dice.randbytes(120), Label(type="event", id=str(number), sandbox="sb_1"))
        for number in range(2, 12)
    ]
    record = seal(KEY, dice.randbytes(120), label)
    stream = sealed_stream(dice.randbytes(streams.CHUNK + 500))
    stream_siblings = [sealed_stream(dice.randbytes(streams.CHUNK + 500)) for _ in range(3)]
    box = seal_to(BOX.public, dice.randbytes(120))
    box_siblings = [seal_to(BOX.public, dice.randbytes(120)) for _ in range(5)]
    message = dice.randbytes(100)
    signature = SIGNER.sign(message)
    signature_siblings = [SIGNER.sign(dice.randbytes(100)) for _ in range(5)]
    found = {"record": 0, "moved record": 0, "stream": 0, "box": 0, "signature": 0}
    for turn in range(count):
        kind = list(found)[turn % len(found)]
        try:
            if kind == "record":
                original, siblings = record, [record]  # others belong elsewhere
                changed = mutate(dice, record, record_siblings)
                unseal(KEY, changed, label)
            elif kind == "moved record":  # whole, but not where it belongs
                original, siblings = record, [record]
                changed = dice.choice(record_siblings)
                unseal(KEY, changed, label)
            elif kind == "stream":
                original, siblings = stream, stream_siblings
                changed = mutate(dice, stream, stream_siblings)
                list(unseal_stream(KEY, io.BytesIO(changed)))
            elif kind == "box":
                original, siblings = box, box_siblings
                changed = mutate(dice, box, box_siblings)
                unseal_with(BOX, changed)
            else:
                original, siblings = signature, [signature]  # others are of other messages
                changed = mutate(dice, signature, signature_siblings)
                if not SIGNER.public.verify(message, changed):
                    continue
        except IntegrityError:
            continue
        # A mutation may change nothing, or put a whole other one in its place.
        found[kind] += changed not in (original, *siblings)
    return found


def test_no_mutation_is_accepted() -> None:
    assert not any(accepted(5_000, seed=random.randrange(2**32)).values())


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_no_mutation_of_100_000_is_accepted() -> None:
    seed = random.randrange(2**32)
    assert not any(accepted(100_000, seed).values()), seed
