"""What the host makes of a context's answer, which code inside can forge."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_sdk import answers
from sandbox_sdk.agent.answers import encode_answer
from sandbox_sdk.errors import ProtocolError
from sandbox_sdk.values import CodeError, MimeBundle

TEXTS = st.text(st.characters(exclude_categories=()))


def read(data: bytes, *, piece: int = 1 << 16) -> answers.Answer | None:
    reader = answers.Reader()
    for start in range(0, len(data), piece):
        if reader.feed(data[start : start + piece]):
            break
    return reader.answer()


@given(shown=st.lists(TEXTS, max_size=3), message=TEXTS, times=st.sampled_from([1, 5000]))
def test_round_trip(shown: list[str], message: str, times: int) -> None:
    """What the agent writes is read back, however long and in whatever pieces."""

    def whole(text: str) -> str:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    results = [{"text/plain": text * times} for text in shown]
    error = {"name": "E", "message": message * times, "traceback": message}
    data = encode_answer({"results": results, "error": error}, [*results, error])
    for piece in (997, 1 << 16):
        answer = read(data, piece=piece)
        assert answer is not None
        assert [bundle.text for bundle in answer.results] == [whole(t * times) for t in shown]
        assert answer.error == CodeError(
            name="E", message=whole(message * times), traceback=whole(message)
        )


def test_value_is_the_last_of_the_results() -> None:
    line = b'{"results": [{"text/plain": "1"}, {"text/plain": "2"}], "value": true}\n'
    answer = read(line)
    assert answer is not None
    assert [bundle.is_value for bundle in answer.results] == [False, True]


def test_only_the_first_answer_counts() -> None:
    """What comes after it, or stands on more lines, changes nothing."""
    answer = read(b'"x"\n{"results": [{"text/plain": 0}]}\n{"results": []}\n')
    assert answer is not None
    assert answer.results[0].text == "x"
    assert read(b"") is None


@pytest.mark.parametrize(
    "line",
    [
        '{"results": [{"text/plain": 0}]}',
        '"x"\n{"results": [{"text/plain": 1}]}',
        '"x"\n{"results": [{"text/plain": -1}]}',
        '"x"\n{"results": [{"text/plain": true}]}',
        '"x"\n{"results": [{"text/plain": 0.0}]}',
        '{"results": [{"text/plain": null}]}',
        '{"results": [{"text/plain": ["x"]}]}',
        '{"results": [{"no type": "x"}]}',
        '{"results": [{"a/b\\n": "x"}]}',
        '{"results": ["x"]}',
        '{"results": {}}',
        '{"results": [], "value": 1}',
        '{"results": [], "omitted": "x"}',
        '{"results": [], "omitted": [5]}',
        '{"results": [], "exit": "0"}',
        '{"results": [], "error": []}',
        '{"results": [], "error": {"name": 5, "message": "", "traceback": ""}}',
        '"x\n{"results": []}',
        '"x" "y"\n{"results": []}',
        '"\\ud800" 5\n{"results": []}',
        "5",
        "",
        json.dumps({"results": [{}] * 300}),
        json.dumps({"results": [{f"a/{n}": "" for n in range(99)}]}),
        json.dumps({"results": [], "omitted": ["x"] * 99}),
        '{"results": ' + "[" * 100_000,
        '{"results": [' + "[]," * 500_000 + "[]]}",
        '"' + "x" * 9_000_000,
        '"x"\n' * 10_000,
    ],
    ids=lambda line: line[:40],
)
def test_any_other_shape_is_refused(line: str) -> None:
    with pytest.raises(ProtocolError):
        read(line.encode() + b"\n")


def test_content_that_is_not_what_it_says() -> None:
    """A bundle's own content is checked by who reads it."""
    bundle = MimeBundle(data={"image/png": "*", "application/json": "[" * 100_000})
    with pytest.raises(ProtocolError):
        _ = bundle.png
    with pytest.raises(ProtocolError):
        bundle.json()
    assert MimeBundle().png is None
    assert MimeBundle().json() is None
    assert MimeBundle(data={"image/png": "aGk=\n"}).png == b"hi"
