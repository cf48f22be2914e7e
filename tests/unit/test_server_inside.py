"""What comes out of a sandbox over a channel is hostile: a client bounds and checks all of it."""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path

import attrs
import pytest

from sandbox_sdk.agent import frames
from sandbox_sdk.agent.sealed import Session
from sandbox_sdk.agent.sodium import Sodium
from sandbox_sdk.backends.http.inside import Inside, set_variables
from sandbox_sdk.backends.sealed import SealedChannel, Trust
from sandbox_sdk.crypto_utils import SigningKey, sodium
from sandbox_sdk.engine.extract import Bounds, shelf_of
from sandbox_sdk.errors import FileError, IntegrityError, ProtocolError, SandboxEnded

pytestmark = pytest.mark.anyio

OK = {"exit_code": 0}


@attrs.define
class Agent:
    """A channel to an agent that answers each request as it is told to.

    Attributes:
        files: What and where -> what is said: pieces of standard output, then the answer. Where
            nothing is, the agent is gone.
        sent: The frames that came.
    """

    files: dict[str, tuple[list[bytes], bytes]]
    sent: list[frames.Frame] = attrs.field(factory=list[frames.Frame])
    _answers: deque[bytes] = attrs.field(factory=deque[bytes])

    def take_ahead(self) -> None:
        """Have none."""

    async def send(self, frame: bytes) -> None:
        said = frames.decode(frame)
        self.sent.append(said)
        if said.kind != frames.OPEN:
            return
        request = json.loads(said.body)
        what = self.files.get(request["op"] + request["path"].removeprefix("/workspace"))
        if what is None:
            return
        pieces, answer = what
        for piece in pieces:
            self._say(frames.DATA, said.exchange, frames.STDOUT, piece)
        if answer:
            self._say(frames.DATA, said.exchange, frames.RESULT, answer)
        self._say(frames.END, said.exchange, 0, json.dumps(OK).encode())

    def _say(self, kind: int, exchange: int, stream: int, body: bytes) -> None:
        self._answers.append(frames.encode(kind, exchange, stream, body))

    async def receive(self) -> bytes:
        if not self._answers:
            raise ConnectionError("the agent is gone")
        return self._answers.popleft()


def contents(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]


def found(*paths: str) -> tuple[list[bytes], bytes]:
    lines = [json.dumps({"path": path, "why": ""}).encode() + b"\n" for path in paths]
    return lines, b"{}"


async def test_files_are_kept_below_what_came_and_as_far_as_there_is_room(tmp_path: Path) -> None:
    agent = Agent(
        {
            "find": found("a", "b", "c", "d"),
            "read/a": ([b"12", b"34"], b'{"bytes": 4}'),
            "read/b": ([b"1234567"], b'{"bytes": 7}'),
            "read/c": ([], b'{"errno": 13, "message": "no"}'),
            "read/d": ([b"1234"], b'{"bytes": 4}'),
        }
    )
    collected = await Inside("sb_1", agent).collect(["*"], shelf_of(tmp_path), Bounds(bytes=9))
    assert [each.path for each in collected.artifacts] == ["a", "d"]
    assert collected.skipped == {
        "b": "larger than what may still be copied",
        "c": "cannot be opened: no",
    }
    assert contents(tmp_path) == [b"1234"]
    few = await Inside("sb_1", agent).collect(["*"], shelf_of(tmp_path), Bounds(files=1))
    assert (len(few.artifacts), set(few.skipped.values())) == (1, {"more than 1 files match"})


LIES = {
    "above": found("../x"),
    "absolute": found("/x"),
    "nothing": found(""),
    "NUL": found("a\0b"),
    "no name": found("\ud800"),
    "no JSON": ([b"{\n"], b"{}"),
    "another shape": ([b"[]\n"], b"{}"),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_a_name_that_no_file_has_is_refused(
    lie: tuple[list[bytes], bytes], tmp_path: Path
) -> None:
    with pytest.raises(ProtocolError):
        await Inside("sb_1", Agent({"find": lie})).collect(["*"], shelf_of(tmp_path))
    assert contents(tmp_path) == []


async def test_what_an_operation_says_is_checked() -> None:
    agent = Agent(
        {
            "write/a": ([], b'{"bytes": 1}'),
            "write/b": ([], b'{"errno": 28, "message": "full"}'),
            "write/c": ([], b""),
            "write/d": ([], b"nonsense"),
            "write/e": ([], b"x" * 65_000),
        }
    )
    inside = Inside("sb_1", agent)
    await inside.write("/workspace/a", b"1")
    with pytest.raises(FileError, match="full") as refused:
        await inside.write("/workspace/b", b"1")
    assert refused.value.errno == 28
    with pytest.raises(FileError, match="no answer"):
        await inside.write("/workspace/c", b"1")
    for path in ("d", "e"):
        with pytest.raises(ProtocolError):
            await inside.write(f"/workspace/{path}", b"1")


async def test_an_agent_that_is_gone_is_told() -> None:
    with pytest.raises(SandboxEnded):
        await Inside("sb_1", Agent({})).write("/workspace/a", bytes(frames.WINDOW * 2))


async def test_variables_go_in_frames_that_the_way_takes() -> None:
    agent = Agent({})
    variables = {f"V{number}": "\1" * 100_000 for number in range(9)}
    await set_variables(agent, variables)
    assert all(len(frame.body) < frames.MAX_FRAME - 64 * 1024 for frame in agent.sent)
    told = [json.loads(frame.body) for frame in agent.sent]
    assert {name: value for some in told for name, value in some.items()} == variables
    agent.sent.clear()
    await set_variables(agent, {})
    assert agent.sent == []


@attrs.define
class Carrier:
    """A channel whose carrier says what it likes."""

    said: list[bytes]

    def take_ahead(self) -> None:
        """Have none."""

    async def send(self, frame: bytes) -> None:
        """Lose it."""

    async def receive(self) -> bytes:
        return self.said.pop(0)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\0",
        frames.encode(frames.END, 1, body=b"{}"),
        frames.encode(frames.REFUSED, body=b"\xff"),
        frames.encode(frames.ANSWER, body=b"[]"),
        frames.encode(frames.ANSWER, body=b'{"answer": 1}'),
    ],
)
async def test_what_does_not_belong_on_a_sealed_channel_is_its_carriers_doing(said: bytes) -> None:
    library, key = Sodium(str(sodium.library())), SigningKey.generate()
    trust = Trust(
        sodium=library,
        owner_seed=key.reveal(),
        owner=key.public.data,
        workers=(key.public.data,),
        accepts=lambda _: "",
    )
    with pytest.raises(IntegrityError):
        await SealedChannel.open(Carrier([said]), trust)
    session = Session(library, writes=bytes(32), reads=bytes(32))
    with pytest.raises(IntegrityError):
        await SealedChannel(Carrier([said]), session).receive()
