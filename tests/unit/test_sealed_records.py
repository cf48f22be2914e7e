"""Records of sandboxes: what they were given is sealed, comes back, and cannot be exchanged."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sandbox_sdk.crypto_utils import KeySource, MasterKey, list_keys
from sandbox_sdk.errors import IntegrityError, KeyNotFound, StateError
from sandbox_sdk.store.folders import StateFolders
from sandbox_sdk.store.sealing import HIDDEN
from sandbox_sdk.store.state import SQLiteStore
from sandbox_sdk.values import SandboxInfo, SandboxSpec, SecurityLevel, new_id
from sandbox_sdk.vault import Vault

pytestmark = pytest.mark.anyio

MASTER = MasterKey.generate().to_text()
CANARIES = {name: f"canary-{name}-51c9" for name in ("env", "metadata", "file")}


@asynccontextmanager
async def opened(state: Path, key: str | None = MASTER) -> AsyncGenerator[SQLiteStore]:
    """Open the records as a client with this key does."""
    folders = StateFolders.open(state)
    store = await SQLiteStore.open(folders, Vault(folders.keys, lambda: KeySource(text=key)))
    try:
        yield store
    finally:
        await store.aclose()


def given(level: SecurityLevel = "medium") -> SandboxInfo:
    spec = SandboxSpec(
        name="s",
        security_level=level,
        env={"TOKEN": CANARIES["env"]},
        metadata={"owner": CANARIES["metadata"], "sandbox_sdk.run": "run_1"},
        files={"a/b": CANARIES["file"].encode()},
    )
    return SandboxInfo(id=new_id("sb"), spec=spec, created_at=time.time())


def found(state: Path) -> set[str]:
    """Return the canaries that lie in any file of a state folder."""
    texts = [path.read_bytes() for path in state.rglob("*") if path.is_file()]
    return {name for name, text in CANARIES.items() if any(text.encode() in t for t in texts)}


@pytest.mark.parametrize(
    ("key", "level"), [(MASTER, "medium"), (None, "high")], ids=["medium, a key", "high"]
)
@pytest.mark.filterwarnings("ignore:no encryption key was set")
async def test_what_a_sandbox_was_given_is_sealed_and_comes_back(
    tmp_path: Path, key: str | None, level: SecurityLevel
) -> None:
    info = given(level)
    async with opened(tmp_path, key) as store:
        await store.insert_sandbox(info)
        assert found(tmp_path) == set()
        assert (await store.get_sandbox(info.id)).spec.env == info.spec.env
    async with opened(tmp_path, key) as store:
        (listed,) = await store.list_sandboxes()
        assert (listed.spec.env, listed.spec.metadata) == (info.spec.env, info.spec.metadata)
        taken = await store.take_sandbox(info.id, started_at=1.0)
        assert taken.files == info.spec.files
        assert taken.info.spec.env == info.spec.env
        await store.put_back(taken)
    assert found(tmp_path) == set()


async def test_the_search_finds_what_is_not_sealed(tmp_path: Path) -> None:
    """The control."""
    async with opened(tmp_path, None) as store:
        await store.insert_sandbox(given())
        assert found(tmp_path) == set(CANARIES)
        assert list_keys(tmp_path / "keys") == []


async def test_what_was_recorded_in_clear_stays_readable_with_a_key(tmp_path: Path) -> None:
    info = given()
    async with opened(tmp_path, None) as store:
        await store.insert_sandbox(info)
    async with opened(tmp_path) as store:
        taken = await store.take_sandbox(info.id, started_at=1.0)
        assert (taken.files, taken.info.spec.env) == (info.spec.files, info.spec.env)


@pytest.mark.parametrize("key", [None, MasterKey.generate().to_text()], ids=["none", "another"])
async def test_without_the_key_sandboxes_are_listed_and_not_started(
    tmp_path: Path, key: str | None
) -> None:
    info = given()
    async with opened(tmp_path) as store:
        await store.insert_sandbox(info)
    async with opened(tmp_path, key) as store:
        (listed,) = await store.list_sandboxes()
        assert (listed.id, listed.spec.name) == (info.id, "s")
        assert listed.spec.env == {"TOKEN": HIDDEN}
        assert listed.spec.metadata == {"owner": HIDDEN, "sandbox_sdk.run": "run_1"}
        with pytest.raises(KeyNotFound) as refused:
            await store.take_sandbox(info.id, started_at=1.0)
        assert refused.value.key_id
        lease = await store.acquire_lease(info.id)
        await store.delete_sandbox(lease)  # needs no key
        assert await store.list_sandboxes() == ()


async def test_nothing_is_sealed_where_nothing_was_given(tmp_path: Path) -> None:
    spec = SandboxSpec(name="s", metadata={"sandbox_sdk.run": "run_1"})
    async with opened(tmp_path) as store:
        await store.insert_sandbox(SandboxInfo(id=new_id("sb"), spec=spec, created_at=1.0))
    assert list_keys(tmp_path / "keys") == []


CHANGES = {
    "settings of another": "UPDATE sandboxes SET spec = (SELECT spec FROM sandboxes WHERE id = ?2)"
    " WHERE id = ?1",
    "files of another": "UPDATE initial_files SET content = (SELECT content FROM initial_files"
    " WHERE sandbox_id = ?2) WHERE sandbox_id = ?1",
    "a file by another name": "UPDATE initial_files SET path = 'c'"
    " WHERE sandbox_id = ?1 AND ?2 > ''",
    "a file cut short": "UPDATE initial_files SET content = substr(content, 1, length(content) - 1)"
    " WHERE sandbox_id = ?1 AND ?2 > ''",
    "a file left out": "DELETE FROM initial_files WHERE sandbox_id = ?1 AND ?2 > ''",
    "another level": "UPDATE sandboxes SET spec = json_set(spec, '$.security_level', 'low')"
    " WHERE id = ?1 AND ?2 > ''",
    "a broken mark": "UPDATE sandboxes SET spec = json_set(spec, '$.sealed', json('[1]'))"
    " WHERE id = ?1 AND ?2 > ''",
}


@pytest.mark.parametrize("what", CHANGES)
async def test_what_was_changed_or_moved_is_refused_by_its_name(tmp_path: Path, what: str) -> None:
    info, other = given(), given()
    async with opened(tmp_path) as store:
        await store.insert_sandbox(info)
        await store.insert_sandbox(other)
    with sqlite3.connect(tmp_path / "state.db") as connection:
        connection.execute(CHANGES[what], (info.id, other.id))
    connection.close()
    async with opened(tmp_path) as store:
        with pytest.raises((IntegrityError, StateError), match=info.id):
            await store.take_sandbox(info.id, started_at=1.0)
        await store.take_sandbox(other.id, started_at=1.0)
