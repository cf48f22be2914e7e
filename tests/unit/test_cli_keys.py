"""The command ``keys``: made, listed, rotated, exported and imported, and never printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sandbox_sdk.cli.app import app
from sandbox_sdk.crypto_utils import KeyRing, KeySource, MasterKey


def invoke(state: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["--state-dir", str(state), *arguments])


def ring(state: Path, source: KeySource | None = None) -> KeyRing:
    found = KeyRing.open(state / "keys", source or KeySource())
    assert found is not None
    return found


def test_a_key_is_made_once_and_not_printed(tmp_path: Path) -> None:
    done = invoke(tmp_path, "keys", "create")
    assert done.exit_code == 0
    file = tmp_path / "keys" / "local.key"
    assert str(file) in done.stdout
    assert file.read_text().strip() not in done.output
    before = file.read_text()
    done = invoke(tmp_path, "keys", "create")
    assert done.exit_code == 1
    assert "was not touched" in done.stderr
    assert file.read_text() == before


def test_a_key_in_a_file_of_its_own_is_used_by_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "my key"
    done = invoke(tmp_path / "s", "keys", "create", "--file", str(file))
    assert f"SANDBOX_ENCRYPTION_KEY_FILE='{file}'" in done.stdout
    monkeypatch.setenv("SANDBOX_ENCRYPTION_KEY_FILE", str(file))
    assert invoke(tmp_path / "s", "keys", "export", "--public").exit_code == 0
    (listed,) = json.loads(invoke(tmp_path / "s", "keys", "list", "--json").stdout)["keys"]
    assert listed["master_id"] == MasterKey.parse(file.read_text()).id
    assert not (tmp_path / "s" / "keys" / "local.key").exists()
    wrong = tmp_path / "nowhere" / "key"
    assert "cannot be written" in invoke(tmp_path, "keys", "create", "--file", str(wrong)).stderr


def test_making_a_key_that_will_not_be_the_master_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SANDBOX_ENCRYPTION_KEY", MasterKey.generate().to_text())
    assert "configured goes before it" in invoke(tmp_path, "keys", "create").stderr


def test_keys_are_listed_one_to_a_line(tmp_path: Path) -> None:
    assert "no key is kept yet" in invoke(tmp_path, "keys", "list").stderr
    invoke(tmp_path, "keys", "create")
    key = ring(tmp_path).data_key("sb_1")
    (line,) = invoke(tmp_path, "keys", "list").stdout.splitlines()
    assert line.split("\t")[:3] == ["data", "sb_1", key.id]


def test_the_folders_own_key_is_rotated(tmp_path: Path) -> None:
    assert "there is no master key" in invoke(tmp_path, "keys", "rotate").stderr
    invoke(tmp_path, "keys", "create")
    key = ring(tmp_path).data_key("sb_1")
    assert invoke(tmp_path, "keys", "rotate").stdout == "wrapped 1 keys under the new master\n"
    assert ring(tmp_path).data_key("sb_1") == key


def test_a_configured_key_is_rotated_to_a_named_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, old = tmp_path / "state", MasterKey.generate().to_text()
    monkeypatch.setenv("SANDBOX_ENCRYPTION_KEY", old)
    invoke(state, "keys", "export", "--public")
    assert "--to" in invoke(state, "keys", "rotate").stderr
    file = tmp_path / "new"
    done = invoke(state, "keys", "rotate", "--to", str(file))
    assert done.stdout.startswith("wrapped 1 keys")
    assert f"SANDBOX_ENCRYPTION_KEY_FILE={file}" in done.stdout
    told = json.loads(invoke(state, "keys", "export", "--public", "--json").stdout)
    assert told["error"]["code"] == "key_not_found"
    monkeypatch.setenv("SANDBOX_ENCRYPTION_KEY_FILE", str(file))
    assert invoke(state, "keys", "export", "--public").exit_code == 0
    (tmp_path / "weak").write_text("short")
    (tmp_path / "weak").chmod(0o600)
    done = invoke(state, "keys", "rotate", "--to", str(tmp_path / "weak"))
    assert "fewer than 12" in done.stderr


def test_keys_move_to_another_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_ENCRYPTION_KEY", MasterKey.generate().to_text())
    here, there, bundle = tmp_path / "here", tmp_path / "there", tmp_path / "bundle"
    public = invoke(here, "keys", "export", "--public").stdout
    assert 'namespaces="sandbox-sdk-manifest@v1" ssh-ed25519 ' in public
    assert invoke(here, "keys", "export", str(bundle)).exit_code == 0
    assert "exists" in invoke(here, "keys", "export", str(bundle)).stderr
    assert invoke(there, "keys", "import", str(bundle)).stdout == "took over 1 keys\n"
    assert invoke(there, "keys", "export", "--public").stdout == public
    assert invoke(here, "keys", "export").exit_code == 2
    assert invoke(here, "keys", "export", "--public", "x").exit_code == 2
    bundle.write_text("{}")
    assert "no file of exported keys" in invoke(there, "keys", "import", str(bundle)).stderr
