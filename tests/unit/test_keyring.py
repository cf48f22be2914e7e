"""The folder of keys: wrapped, found again, rotated, erased, shared by processes."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
from pathlib import Path

import pytest

from sandbox_sdk.crypto_utils import (
    DataKey,
    KeyRing,
    KeySource,
    MasterKey,
    Unlock,
    export_keys,
    key_files,
    list_keys,
    seal,
    unseal,
)
from sandbox_sdk.crypto_utils.key_files import LOCAL_KEY, NEXT_KEY, read_public
from sandbox_sdk.crypto_utils.masters import write_key_file
from sandbox_sdk.durable import write_durably
from sandbox_sdk.errors import ConfigError, IntegrityError, KeyNotFound, StateError

PHRASE = "correct horse battery staple"
NOTHING = KeySource()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def opened(folder: Path, source: KeySource = NOTHING) -> KeyRing:
    ring = KeyRing.open(folder, source, create=True)
    assert ring is not None
    return ring


def wrapped_file(folder: Path, name: str) -> Path:
    return folder / "wrapped" / f"data-{name}.json"


def test_without_a_master_there_are_no_keys(folder: Path) -> None:
    assert KeyRing.open(folder, NOTHING) is None
    assert KeyRing.open(folder, NOTHING, create=True) is not None
    assert (folder / LOCAL_KEY).stat().st_mode & 0o777 == 0o600
    assert KeyRing.open(folder, NOTHING) is not None


def test_a_key_is_the_same_for_whoever_opens_the_folder(folder: Path) -> None:
    ring = opened(folder)
    key = ring.data_key("sb_1")
    assert ring.data_key("sb_1") is key
    assert opened(folder).data_key("sb_1") == key
    assert opened(folder).find_data_key("sb_1") == key
    assert opened(folder).find_data_key("sb_2") is None
    assert ring.data_key("sb_2") != key
    assert ring.signing_key() == opened(folder).signing_key()
    assert read_public(folder) == ring.signing_key().public


def test_no_key_lies_there_in_clear(folder: Path) -> None:
    ring = opened(folder)
    keys = [ring.data_key("sb_1"), ring.signing_key()]
    stored = b"".join(path.read_bytes() for path in (folder / "wrapped").iterdir())
    for key in keys:
        for shown in (key.reveal(), key.reveal().hex().encode()):
            assert shown not in stored


def test_an_argument_goes_before_a_file_and_that_before_the_folders_own(
    folder: Path, tmp_path: Path
) -> None:
    local = opened(folder).data_key("a")
    argument, file = MasterKey.generate(), MasterKey.generate()
    write_key_file(tmp_path / "file", file)
    both = KeySource(text=argument.to_text(), file=tmp_path / "file")
    opened(folder, both).data_key("b")
    ring = opened(folder, KeySource(file=tmp_path / "file"))
    ring.data_key("c")
    assert ring.data_key("a") == local  # what is there already stays readable
    masters = {key.name: key.master_id for key in list_keys(folder)}
    assert masters["b"] == argument.id
    assert masters["c"] == file.id
    with pytest.raises(KeyNotFound, match="encryption_key") as caught:
        ring.data_key("b")
    assert caught.value.key_id == argument.id


def test_a_passphrase_wraps_with_one_salt_for_the_folder(folder: Path) -> None:
    source = KeySource(text=PHRASE)
    first = opened(folder, source).data_key("a")
    opened(folder, source).data_key("b")
    assert opened(folder, source).data_key("a") == first
    salts = {key.derivation.salt for key in list_keys(folder) if key.derivation}
    assert len(salts) == 1
    assert not (folder / LOCAL_KEY).exists()
    with pytest.raises(KeyNotFound, match="passphrase"):
        opened(folder, KeySource(text=PHRASE + "r")).data_key("a")


def test_rotation_keeps_every_key_and_its_data(folder: Path) -> None:
    ring = opened(folder)
    keys = {name: ring.data_key(name) for name in ("a", "b", "c")}
    sealed = seal(keys["a"], b"secret")
    signing = ring.signing_key()
    old = (folder / LOCAL_KEY).read_text()
    assert ring.rotate() == 4
    assert (folder / LOCAL_KEY).read_text() != old
    assert not (folder / NEXT_KEY).exists()
    ring.data_key("d")  # the same object goes on, under the new master
    fresh = opened(folder)
    assert {name: fresh.data_key(name) for name in keys} == keys
    assert fresh.signing_key() == signing
    assert unseal(fresh.data_key("a"), sealed) == b"secret"
    assert len({key.master_id for key in list_keys(folder)}) == 1
    (folder / LOCAL_KEY).unlink()
    with pytest.raises(KeyNotFound):
        KeyRing(folder, Unlock.parse(old)).data_key("a")


def test_a_process_that_did_not_rotate_goes_on_under_the_new_master(folder: Path) -> None:
    """What it makes must not be wrapped under a master that is nowhere any more."""
    ring, other = opened(folder), opened(folder)
    key = ring.data_key("a")
    ring.rotate()
    assert other.data_key("a") == key
    made = other.data_key("b")
    assert opened(folder).data_key("b") == made
    assert len({key.master_id for key in list_keys(folder)}) == 1


def test_rotation_goes_to_a_given_master(folder: Path) -> None:
    key = opened(folder, KeySource(text=PHRASE)).data_key("a")
    new = MasterKey.generate()
    assert opened(folder, KeySource(text=PHRASE)).rotate(Unlock(new)) == 1
    source = KeySource(text=new.to_text())
    assert opened(folder, source).data_key("a") == key
    assert opened(folder, source).rotate(Unlock(new)) == 0
    assert opened(folder, source).rotate(Unlock.parse(PHRASE)) == 1
    assert opened(folder, KeySource(text=PHRASE)).data_key("a") == key


@pytest.mark.parametrize("moment", range(3))
def test_an_interrupted_rotation_loses_nothing_and_can_go_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    ring = opened(folder)
    keys = {name: ring.data_key(name) for name in ("a", "b", "c")}
    calls = 0

    def dying(path: Path, data: bytes) -> None:
        nonlocal calls
        if calls == moment:
            raise KeyboardInterrupt
        calls += 1
        write_durably(path, data)

    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr("sandbox_sdk.crypto_utils.keyring.write_durably", dying)
        ring.rotate()
    assert {name: opened(folder).data_key(name) for name in keys} == keys
    opened(folder).rotate()
    assert {name: opened(folder).data_key(name) for name in keys} == keys
    assert not (folder / NEXT_KEY).exists()
    assert len({key.master_id for key in list_keys(folder)}) == 1


def test_a_key_that_cannot_be_opened_stops_a_rotation_before_it_starts(folder: Path) -> None:
    opened(folder, KeySource(text=MasterKey.generate().to_text())).data_key("other")
    ring = opened(folder)
    ring.data_key("mine")
    before = {path.name: path.read_bytes() for path in (folder / "wrapped").iterdir()}
    with pytest.raises(KeyNotFound):
        ring.rotate()
    assert {path.name: path.read_bytes() for path in (folder / "wrapped").iterdir()} == before
    assert not (folder / NEXT_KEY).exists()


def test_erasing_a_key_is_for_good(folder: Path) -> None:
    ring = opened(folder)
    sealed = seal(ring.data_key("a"), b"secret")
    assert ring.erase("a")
    assert not ring.erase("a")
    assert ring.find_data_key("a") is None
    with pytest.raises(IntegrityError):
        unseal(ring.data_key("a"), sealed)


def test_a_wrapped_key_that_was_changed_or_moved_is_refused(folder: Path) -> None:
    ring = opened(folder)
    ring.data_key("a")
    path = wrapped_file(folder, "a")
    good = json.loads(path.read_text())
    wrapped_file(folder, "b").write_bytes(path.read_bytes())
    with pytest.raises(IntegrityError, match="moved"):
        opened(folder).data_key("b")
    changes: list[dict[str, object]] = [
        {"name": "b"},
        {"kind": "signing"},
        {"created_at": 1},
        {"id": "0" * 16},
        {"sealed": good["sealed"][:-4] + "AAAA"},
        {"sealed": "!"},
        {"format": "sandbox-sdk-key@9"},
        {"id": 5},
    ]
    for change in changes:
        for name in ("a", "b"):  # where the file's name fits, and where the content's does
            wrapped_file(folder, name).write_text(json.dumps({**good, **change}))
            with pytest.raises(IntegrityError):
                opened(folder).data_key(name)
    path.write_text("no json")
    with pytest.raises(IntegrityError, match=r"data-a\.json"):
        list_keys(folder)


def test_names_never_lead_out_of_the_folder(folder: Path) -> None:
    for name in ("../x", "a/b", "", ".x", "a\n", "x" * 101):
        with pytest.raises(ConfigError, match="key name"):
            opened(folder).data_key(name)


def test_keys_are_exported_wrapped_and_imported_elsewhere(folder: Path, tmp_path: Path) -> None:
    master = KeySource(text=MasterKey.generate().to_text())
    ring = opened(folder, master)
    keys = {name: ring.data_key(name) for name in ("a", "b")}
    bundle = tmp_path / "bundle"
    assert export_keys(folder, bundle) == 2
    assert bundle.stat().st_mode & 0o777 == 0o600
    with pytest.raises(StateError, match="exists"):
        export_keys(folder, bundle)
    there = opened(tmp_path / "there", master)
    assert [key.name for key in there.import_keys(bundle)] == ["a", "b"]
    assert there.import_keys(bundle) == ()
    assert {name: there.data_key(name) for name in keys} == keys


def test_an_import_takes_all_or_nothing(folder: Path, tmp_path: Path) -> None:
    master = KeySource(text=MasterKey.generate().to_text())
    ring = opened(folder, master)
    for name in ("a", "b"):
        ring.data_key(name)
    bundle = tmp_path / "bundle"
    export_keys(folder, bundle)
    with pytest.raises(KeyNotFound):
        opened(tmp_path / "stranger").import_keys(bundle)
    rival = opened(tmp_path / "rival", master)
    rival.data_key("b")
    with pytest.raises(ConfigError, match="another key"):
        rival.import_keys(bundle)
    assert [key.name for key in list_keys(tmp_path / "rival")] == ["b"]
    text = bundle.read_text()
    for wrong in ("[]", "{}", "x", '{"keys": 5}', '{"keys": [1]}', text.replace('"b"', '"c"')):
        bundle.write_text(wrong)
        with pytest.raises(IntegrityError):
            opened(tmp_path / "fresh", master).import_keys(bundle)
    assert list_keys(tmp_path / "fresh") == []


def test_many_at_once_make_one_key(folder: Path) -> None:
    found: list[DataKey] = []

    def make() -> None:
        found.append(opened(folder).data_key("a"))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_a_folder_that_cannot_be_written_is_a_state_error(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("a file")
    with pytest.raises(StateError, match="keys"):
        KeyRing.open(tmp_path / "keys", NOTHING, create=True)


def test_a_full_disk_leaves_no_half_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ring = opened(folder)
    kept = ring.data_key("a")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StateError, match="No space left"):
            ring.data_key("b")
        with pytest.raises(StateError, match="No space left"):
            ring.rotate()
    assert [path.name for path in (folder / "wrapped").iterdir()] == ["data-a.json"]
    assert sorted(path.name for path in folder.iterdir()) == [".lock", LOCAL_KEY, "wrapped"]
    assert opened(folder).data_key("a") == kept
    assert opened(folder).find_data_key("b") is None


def test_a_key_of_the_folder_that_others_may_read_is_refused(folder: Path) -> None:
    opened(folder)
    os.chmod(folder / LOCAL_KEY, 0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        opened(folder)


def test_the_public_key_is_mended(folder: Path) -> None:
    ring = opened(folder)
    public = ring.signing_key().public
    (folder / key_files.PUBLIC).unlink()
    assert read_public(folder) is None
    assert ring.signing_key().public == public == read_public(folder)
