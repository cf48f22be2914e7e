"""At high, what a sandbox leaves on the disk opens with its key only, which a deletion erases."""

from __future__ import annotations

from pathlib import Path

import pytest
from host import GROUPS

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.crypto_utils import MasterKey, list_keys
from sandbox_sdk.errors import FileError, KeyNotFound, StateError
from sandbox_sdk.store.base import Lease
from sandbox_sdk.store.state import SQLiteStore

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not GROUPS, reason="high is refused here, which test_walls_off tests"),
]

HUSH = b"hush-canary-5aa1"


def on_disk(state: Path) -> bool:
    """Return whether the canary lies anywhere in the state folder, in a name or in a file."""
    paths = [path for path in state.rglob("*") if path.is_file() and not path.is_symlink()]
    named = any(HUSH.decode() in str(path) for path in paths)
    return named or any(HUSH in path.read_bytes() for path in paths)


async def make(state: Path, key: str | None, level: str = "high") -> str:
    """Leave a sandbox with a canary in a file and a file's name, and return its id."""
    config = {"security": {"encryption_key": key}} if key else None
    async with AsyncSandboxClient(state_dir=state, config=config) as client:
        sandbox = await client.create_sandbox("sealed", security_level=level)
        await sandbox.setup()
        await sandbox.files.write("note", HUSH * 3)
        await sandbox.files.write(HUSH.decode(), b"x")
        await sandbox.cleanup()
        return sandbox.id


async def test_what_is_left_is_sealed_and_comes_back(tmp_path: Path) -> None:
    key = MasterKey.generate().to_text()
    made = await make(tmp_path, key)
    assert not on_disk(tmp_path)
    config = {"security": {"encryption_key": key}}
    async with AsyncSandboxClient(state_dir=tmp_path, config=config) as client:
        sandbox = await client.get_sandbox(made)
        assert await sandbox.files.read("note") == HUSH * 3  # which starts it anew
        async with AsyncSandboxClient(state_dir=tmp_path, config=config) as other:
            # Held by the first: read from what was saved, in memory only.
            seen = await other.get_sandbox(made)
            assert await seen.files.read("note") == HUSH * 3
            with pytest.raises(FileError, match="No such file"):
                await seen.files.read("missing")
        await sandbox.cleanup()
        assert not on_disk(tmp_path)


async def test_the_search_finds_what_is_not_sealed(tmp_path: Path) -> None:
    """The control: at medium the workspace lies on the disk as it is."""
    await make(tmp_path, None, level="medium")
    assert on_disk(tmp_path)


async def test_without_the_key_nothing_of_it_is_had(tmp_path: Path) -> None:
    made = await make(tmp_path, MasterKey.generate().to_text())
    config = {"security": {"encryption_key": MasterKey.generate().to_text()}}
    async with AsyncSandboxClient(state_dir=tmp_path, config=config) as client:
        sandbox = await client.get_sandbox(made)
        # Nor can it be recorded, with a key that is not here.
        recorded = pytest.warns(UserWarning, match="NOT recorded")
        with recorded, pytest.raises(KeyNotFound, match="encryption_key"):
            await sandbox.setup()


async def test_a_deleted_sandbox_has_no_key_any_more(tmp_path: Path) -> None:
    key = MasterKey.generate().to_text()
    made = await make(tmp_path, key)
    assert [kept.name for kept in list_keys(tmp_path / "keys")] == [made, "audit"]
    async with AsyncSandboxClient(state_dir=tmp_path) as client:  # needs no master
        with pytest.warns(UserWarning, match="NOT recorded"):
            await client.delete_sandbox(made)
    assert [kept.name for kept in list_keys(tmp_path / "keys")] == ["audit"]


async def test_a_deletion_that_is_cut_off_has_erased_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nothing would come back to it: what clears up goes by the records."""
    key = MasterKey.generate().to_text()
    made = await make(tmp_path, key)

    async def cut_off(store: SQLiteStore, lease: Lease) -> None:
        raise StateError("cut off")

    monkeypatch.setattr(SQLiteStore, "delete_sandbox", cut_off)
    config = {"security": {"encryption_key": key}}
    async with AsyncSandboxClient(state_dir=tmp_path, config=config) as client:
        with pytest.raises(StateError, match="cut off"):
            await client.delete_sandbox(made)
    assert [kept.name for kept in list_keys(tmp_path / "keys")] == ["audit"]


async def test_artifacts_of_a_sealed_workspace_need_it_to_run(tmp_path: Path) -> None:
    key = MasterKey.generate().to_text()
    made = await make(tmp_path, key)
    config = {"security": {"encryption_key": key}}
    async with AsyncSandboxClient(state_dir=tmp_path, config=config) as client:
        sandbox = await client.get_sandbox(made)
        with pytest.raises(StateError, match=r"setup\(\) first"):
            await sandbox.collect(["*"], tmp_path / "out")


async def test_a_missing_key_is_made_and_said(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"keys/local\.key: keep a copy"):
        await make(tmp_path, None)
    assert not on_disk(tmp_path)
