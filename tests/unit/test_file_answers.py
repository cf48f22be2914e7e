"""What the host makes of answers to file operations, which code inside can forge."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast

import anyio
import pytest

from sandbox_sdk.agent import frames
from sandbox_sdk.backends.exchanges import Sink
from sandbox_sdk.errors import FileError, ProtocolError
from sandbox_sdk.files import AsyncFiles
from sandbox_sdk.link import Link
from sandbox_sdk.values import FileEvent

pytestmark = pytest.mark.anyio

GOOD = {
    "path": "/workspace/x",
    "kind": "file",
    "size_bytes": 1,
    "mode": 0o644,
    "modified_at": 1.5,
    "target": None,
}


class _Forger:
    """Stands in for a link: every operation inside is answered with the same text."""

    id = "sb_00000000000000000000000000"

    def __init__(self, answer: object, content: bytes = b"") -> None:
        self.over = anyio.Event()
        self.report = {"exit_code": 0}
        self.busy = True
        self._answer = answer
        self._content = content

    async def start(self, request: object, sink: Sink) -> _Forger:
        sink.take(frames.STDOUT, self._content)
        sink.end(frames.STDOUT)
        sink.take(frames.RESULT, json.dumps(self._answer).encode())
        sink.end(frames.RESULT)
        self.over.set()
        return self

    async def give_credit(self, stream: int, count: int) -> None:
        return


def _files(answer: object, content: bytes = b"") -> AsyncFiles:
    async def link() -> Link:
        return cast("Link", _Forger(answer, content))

    return AsyncFiles(link, _Forger.id, cast("Callable[..., Any]", None))


@pytest.mark.parametrize(
    "wrong",
    [
        {"path": 5},
        {"kind": "door"},
        {"size_bytes": "1"},
        {"mode": None},
        {"modified_at": "now"},
        {"target": ["x"]},
    ],
)
async def test_forged_description(wrong: dict[str, object]) -> None:
    """A description of any other shape than agreed on is a ProtocolError."""
    assert (await _files(GOOD).stat("x")).mode == 0o644
    with pytest.raises(ProtocolError):
        await _files({**GOOD, **wrong}).stat("x")
    with pytest.raises(ProtocolError):
        await _files({"complete": True, "entries": [{**GOOD, **wrong}]}).list()


@pytest.mark.parametrize("answer", [{"complete": True}, {"complete": True, "entries": 5}, [], 5])
async def test_forged_listing(answer: object) -> None:
    """A list that is none is a ProtocolError."""
    with pytest.raises(ProtocolError):
        await _files(answer).list()


async def test_forged_message() -> None:
    """A failure's words are bounded."""
    with pytest.raises(FileError) as raised:
        await _files({"errno": 2, "message": "x" * 1_000_000}).stat("x")
    assert len(str(raised.value)) < 500


EVENT = {"kind": "moved", "path": "/workspace/x", "old_path": "/workspace/y", "is_folder": False}


@pytest.mark.parametrize(
    "wrong",
    [
        b'{"kind": "exploded", "path": "/x", "is_folder": false}\n',
        b'{"kind": ["moved"], "path": "/x", "is_folder": false}\n',
        b'{"kind": "moved", "path": 5, "is_folder": false}\n',
        b'{"kind": "moved", "path": "/x", "is_folder": 1}\n',
        b'{"kind": "moved", "path": "/x", "is_folder": true, "old_path": 5}\n',
        b'{"kind": "moved", "path": "/x"}\n',
        b"[]\n",
        b"\n",
        b"[" * 60_000 + b"\n",
        b"\xff\xfe\n",
        b" " * 100_000,
    ],
    ids=lambda wrong: str(wrong[:40]),
)
async def test_forged_events(wrong: bytes) -> None:
    """An event of any other shape than agreed on, or without end, is a ProtocolError."""
    good = json.dumps(EVENT).encode() + b"\n"
    events = _files({}, good + good + wrong).watch()
    expected = FileEvent(kind="moved", path="/workspace/x", old_path="/workspace/y")
    with pytest.raises(ProtocolError):  # noqa: PT012 - what came before it is taken
        async for event in events:
            assert event == expected


async def test_events_end_with_their_answer() -> None:
    """A watch that ends by itself says so, and one that fails raises its error."""
    good = json.dumps(EVENT).encode() + b"\n"
    assert len([event async for event in _files({}, good * 3).watch()]) == 3
    with pytest.raises(FileError):
        await anext(aiter(_files({"errno": 2, "message": "gone"}).watch()))
