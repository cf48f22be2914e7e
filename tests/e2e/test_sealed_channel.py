"""A sandbox whose channel is sealed: what passes on it is read by its two ends alone."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

from sandbox_sdk import calls, contexts, requests
from sandbox_sdk.agent import frames
from sandbox_sdk.agent.seal import ClientHandshake, Subject
from sandbox_sdk.agent.sodium import Sodium
from sandbox_sdk.backends.base import Channel
from sandbox_sdk.backends.local import LocalBackend
from sandbox_sdk.backends.sealed import SealedChannel, Trust
from sandbox_sdk.config import Settings
from sandbox_sdk.contexts import Context
from sandbox_sdk.crypto_utils.keys import SigningKey
from sandbox_sdk.engine.scale_log import ScaleLog
from sandbox_sdk.engine.supervisor import Supervisor
from sandbox_sdk.engine.templates import Templates
from sandbox_sdk.engine.worker import SealingChannel, Worker
from sandbox_sdk.errors import IntegrityError
from sandbox_sdk.link import Link
from sandbox_sdk.store.folders import StateFolders
from sandbox_sdk.store.state import SQLiteStore
from sandbox_sdk.values import Resources, SandboxSpec, SecurityLevel
from sandbox_sdk.vault import Vault

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

CANARY = "canary-7f3a"


def _library() -> Path:
    spec = importlib.util.find_spec("nacl._sodium")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin)


LIBRARY = _library()
SODIUM = Sodium(str(LIBRARY))
OWNER, WORKER, STRANGER = SigningKey.generate(), SigningKey.generate(), SigningKey.generate()


def trust(key: SigningKey = OWNER, worker: SigningKey = WORKER, **other: Any) -> Trust:
    known = {
        "sodium": SODIUM,
        "owner_seed": key.reveal(),
        "owner": key.public.data,
        "workers": (worker.public.data,),
        "accepts": lambda subject: "" if subject.owners == (OWNER.public.data,) else "other owners",
    }
    return Trust(**{**known, **other})


@attrs.define
class Wire:
    """The channel as whoever relays it sees it, and can change it."""

    inner: Channel
    passed: list[bytes] = attrs.field(factory=list[bytes])
    change: Callable[[bytes], bytes] = bytes

    def take_ahead(self) -> None:
        assert self.inner.take_ahead() is None

    async def send(self, frame: bytes) -> None:
        self.passed.append(frame)
        await self.inner.send(self.change(frame))

    async def receive(self) -> bytes:
        frame = await self.inner.receive()
        self.passed.append(frame)
        return frame


class Sealed:
    """A backend as a client of it sees it over a relay: every channel is sealed."""

    def __init__(self, backend: LocalBackend, channel: Channel) -> None:
        self._backend = backend
        self._channel = channel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    @asynccontextmanager
    async def connect(self, id: str) -> AsyncGenerator[Channel, None]:
        yield self._channel


@attrs.define
class World:
    """A worker, and one sandbox that only the owner may use."""

    backend: LocalBackend
    supervisor: Supervisor
    sandbox: str = ""
    resources: Resources = attrs.field(factory=Resources)

    def wire(self) -> AbstractAsyncContextManager[Channel]:
        return self.backend.connect(self.sandbox)

    async def link(self, channel: Channel) -> Link:
        backend: Any = Sealed(self.backend, channel)
        return await Link.open(self.sandbox, backend, self.resources, self.supervisor)


@asynccontextmanager
async def world(
    state: Path, level: SecurityLevel, runtime: str | None = None
) -> AsyncIterator[World]:
    settings = Settings.load(state_dir=state)
    folders = await anyio.to_thread.run_sync(StateFolders.open, state)
    store = await SQLiteStore.open(folders)
    supervisor = Supervisor()
    vault = Vault(folders.keys, lambda: settings.key_source)
    backend = LocalBackend(
        store,
        folders,
        supervisor,
        Templates(folders.templates),
        vault,
        uid_range=(settings.uid_range.first, settings.uid_range.count),
        pool_size=0,
        scaled=False,
        scale_log=ScaleLog(),
        worker=Worker(LIBRARY, WORKER),
    )
    try:
        waive = ("disk", "landlock") if (runtime, level) == ("bubblewrap", "high") else ()
        spec = SandboxSpec(
            name="sealed",
            security_level=level,
            owners=(OWNER.public.data.hex(),),
            runtime=runtime,  # type: ignore[arg-type]
            waive=waive,
        )
        made = await backend.create(spec)
        await backend.start(made.id)
        yield World(backend, supervisor, made.id, spec.resources)
    finally:
        await backend.aclose()
        await supervisor.aclose()
        await store.aclose()


KINDS = [("medium", "zygote"), ("high", "zygote"), ("medium", "bubblewrap")]


@pytest.mark.parametrize(("level", "runtime"), KINDS)
async def test_everything_passes_and_nothing_is_seen(
    tmp_path: Path, level: SecurityLevel, runtime: str
) -> None:
    async with world(tmp_path, level, runtime) as here, here.wire() as inner:
        wire = Wire(inner)
        link = await here.link(await SealedChannel.open(wire, trust()))
        request = requests.command(["cat"], cwd=None, env={"WORD": CANARY})
        sent = f"{CANARY}\n".encode() * 50_000
        done = await calls.run_command(link, request, stdin=sent, timeout=30)
        assert done.stdout.encode() == sent
        assert (await contexts.run_fresh(link, f"print('{CANARY}')", timeout=30)).stdout
        kept = Context()
        await kept.run(link, f"word = '{CANARY}'", timeout=30)
        code = "import sys; (word, 'nacl' in sys.modules, 'sandbox_sdk' in sys.modules)"
        seen = await kept.run(link, code, timeout=30)
        assert seen.results[-1].text == repr((CANARY, False, False))
        assert not any(CANARY.encode() in frame for frame in wire.passed)
        kinds = {frames.decode(frame).kind for frame in wire.passed}
        assert kinds == {frames.OPENING, frames.ANSWER, frames.PROOF, frames.SEALED}


async def test_who_may_not_open_it_is_refused_and_ends_nothing(tmp_path: Path) -> None:
    async with world(tmp_path, "medium") as here, here.wire() as wire:
        with pytest.raises(IntegrityError, match="not one that may open"):
            await SealedChannel.open(wire, trust(STRANGER))
        liar = trust(STRANGER, owner=OWNER.public.data)
        await SealedChannel.open(wire, liar)  # it learns of the refusal with the next frame
        refused = frames.decode(await wire.receive())
        assert (refused.kind, b"does not hold" in refused.body) == (frames.REFUSED, True)
        link = await here.link(await SealedChannel.open(wire, trust()))
        assert (await contexts.run_fresh(link, "1", timeout=30)).ok


async def test_openings_that_nothing_comes_of_end_nothing_and_are_not_kept(
    tmp_path: Path,
) -> None:
    """Of a server's sessions, any of which may be a stranger's."""
    begun = ClientHandshake(SODIUM, OWNER.reveal(), OWNER.public.data).opening.encode()

    def said(session: int, opening: bytes) -> bytes:
        inner = frames.encode(frames.OPENING, body=opening)
        return frames.encode(frames.RELAY, session, body=inner)

    async with world(tmp_path, "medium") as here, here.wire() as wire:
        for session, opening in ((1, b"none"), (2, begun), (2, begun), (3, begun), (3, b"none")):
            await wire.send(said(session, opening))
        answers = [frames.decode(await wire.receive()).body for _ in range(5)]
        assert [frames.decode(each).kind for each in answers].count(frames.REFUSED) == 4
        for session in (1, 2, 3):
            await wire.send(said(session, begun))
            await wire.send(frames.encode(frames.DETACH, session))
            await wire.receive()
        assert isinstance(wire, SealingChannel)
        assert wire._openings == {}
        link = await here.link(await SealedChannel.open(wire, trust()))
        assert (await contexts.run_fresh(link, "1", timeout=30)).ok


async def test_frames_in_clear_do_not_reach_the_agent(tmp_path: Path) -> None:
    async with world(tmp_path, "medium") as here, here.wire() as wire:
        body = b'{"kind": "command", "argv": ["touch", "/workspace/here"]}'
        for frame in (frames.encode(frames.OPEN, 1, body=body), frames.encode(frames.KILL, 1)):
            await wire.send(frame)
            assert frames.decode(await wire.receive()).kind == frames.REFUSED
        link = await here.link(await SealedChannel.open(wire, trust()))
        found = await contexts.run_fresh(link, "import os; os.listdir('/workspace')", timeout=30)
        assert found.results[-1].text == "[]"


async def test_a_worker_that_is_not_known_is_refused(tmp_path: Path) -> None:
    async with world(tmp_path, "medium") as here, here.wire() as wire:
        with pytest.raises(IntegrityError, match="vouches"):
            await SealedChannel.open(wire, trust(worker=STRANGER))


async def test_a_sandbox_that_others_may_open_too_is_refused(tmp_path: Path) -> None:
    def accepts(subject: Subject) -> str:
        return "" if subject.owners == (STRANGER.public.data,) else "it has another owner"

    async with world(tmp_path, "medium") as here, here.wire() as wire:
        with pytest.raises(IntegrityError, match="it has another owner"):
            await SealedChannel.open(wire, trust(accepts=accepts))


async def test_what_is_changed_on_the_way_ends_the_session_and_not_the_sandbox(
    tmp_path: Path,
) -> None:
    def changed(frame: bytes) -> bytes:
        if frames.decode(frame).kind != frames.SEALED:
            return frame
        return frame[:-1] + bytes([frame[-1] ^ 1])

    async with world(tmp_path, "medium") as here, here.wire() as inner:
        session = await SealedChannel.open(Wire(inner, change=changed), trust())
        await session.send(frames.encode(frames.OPEN, 1, body=b'{"kind": "python"}'))
        with pytest.raises(IntegrityError, match="was changed"):
            await session.receive()
        link = await here.link(await SealedChannel.open(inner, trust()))
        assert (await contexts.run_fresh(link, "1", timeout=30)).ok


_SEARCH = """
import hashlib, os
first, digest = bytes(255 - byte for byte in {inverted!r}), {digest!r}

def holds(pid):
    found = searched = 0
    with open(f"/proc/{{pid}}/maps") as maps, open(f"/proc/{{pid}}/mem", "rb") as memory:
        for line in maps:
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            try:
                memory.seek(start)
                data = memory.read(end - start)
            except (OSError, OverflowError, ValueError):
                continue
            searched += len(data)
            at = data.find(first)
            while at >= 0:
                found += hashlib.sha256(data[at + 16 : at + 32]).hexdigest() == digest
                at = data.find(first, at + 1)
    return found, searched > 1_000_000

seen = {{}}
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        seen[int(pid)] = holds(pid)
    except PermissionError:
        seen[int(pid)] = "refused"
sorted(seen.values(), key=str), seen[1], os.getpid() in seen
"""


@pytest.mark.timeout(60)
async def test_no_guest_finds_a_key_of_the_session(tmp_path: Path) -> None:
    """It reads all memory that it may: its own, and that of the others of its user."""
    async with world(tmp_path, "medium") as here, here.wire() as wire:
        channel = await SealedChannel.open(wire, trust())
        key = channel._session._reads  # pyright: ignore[reportPrivateUsage]
        link = await here.link(channel)
        sibling, kept = Context(), Context()
        await sibling.run(link, "1", timeout=30)

        async def looked_for(secret: bytes) -> str:
            inverted = bytes(255 - byte for byte in secret[:16])
            digest = hashlib.sha256(secret[16:]).hexdigest()
            code = _SEARCH.format(inverted=inverted, digest=digest)
            found = await kept.run(link, code, timeout=50)
            assert found.ok, found
            assert found.results[-1].text is not None
            return found.results[-1].text

        # Both contexts were searched, PID 1, the sealing process and the keepers were not.
        found = await looked_for(key)
        assert "(1, True)" not in found
        assert found.count("(0, True)") == 2
        assert found.endswith("'refused', True)")
        # The search would find one.
        await sibling.run(link, f"planted = bytes.fromhex('{key.hex()}')", timeout=30)
        assert "(1, True)" in await looked_for(key) or "(2, True)" in await looked_for(key)
