"""Frames come through a byte stream whole, however it is cut; what is no frame is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_sdk.agent import frames

frame = st.builds(
    frames.Frame,
    st.integers(0, 255),
    st.integers(0, 2**32 - 1),
    st.integers(0, 255),
    st.binary(max_size=300),
)


@given(frame)
def test_round_trip(frame: frames.Frame) -> None:
    """Decoding gives back what was encoded."""
    assert frames.decode(frames.encode(*frame)) == frame


@given(st.lists(frame, max_size=10), st.data())
def test_any_split_gives_the_same_frames(sent: list[frames.Frame], data: st.DataObject) -> None:
    """Wherever the stream is cut, the frames come out whole, in order, and as early as can be."""
    stream = b"".join(frames.delimit(frames.encode(*each)) for each in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    splitter = frames.Splitter()
    received: list[bytes] = []
    seen = 0
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        received += splitter.feed(stream[begin:end])
        seen = end
        whole, at = 0, 0
        for each in sent:
            at += 4 + len(frames.encode(*each))
            whole += at <= seen
        assert len(received) == whole
    assert [frames.decode(each) for each in received] == sent


@given(st.integers(frames.MAX_FRAME + 1, 2**32 - 1), st.binary(max_size=20))
def test_oversize_is_refused_before_it_is_received(length: int, rest: bytes) -> None:
    """A length beyond the bound is an error at once: nobody waits for, or keeps, that much."""
    with pytest.raises(ValueError, match="longest allowed"):
        frames.Splitter().feed(length.to_bytes(4, "big") + rest)


def test_the_longest_frame_is_taken() -> None:
    """The bound itself is allowed."""
    longest = bytes(frames.MAX_FRAME)
    assert frames.Splitter().feed(frames.delimit(longest)) == [longest]


@given(st.binary(max_size=5))
def test_shorter_than_a_header_is_refused(data: bytes) -> None:
    """A frame of less than a header is an error."""
    with pytest.raises(ValueError, match="shorter than its header"):
        frames.decode(data)


@given(st.integers(0, 2**32 - 1), st.binary().filter(lambda body: len(body) != 4))
def test_numbers(number: int, wrong: bytes) -> None:
    """Bodies that are a number are 4 bytes, and nothing else."""
    assert frames.decode_number(frames.encode_number(number)) == number
    with pytest.raises(ValueError, match="number of"):
        frames.decode_number(wrong)
