"""The agent's folder is made once per version, whoever is first."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sandbox_sdk.engine import payload


def test_many_installers_at_once_leave_one_folder(tmp_path: Path) -> None:
    """All get the same folder, complete and read-only, and no half copy stays."""
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(payload.install, [tmp_path / "agent"] * 8))
    (folder,) = found
    assert list((tmp_path / "agent").iterdir()) == [folder]
    assert (folder / "sandbox_sdk/agent/init.py").read_bytes()
    assert not (folder / "sandbox_sdk/__init__.py").exists()
    assert not [path for path in folder.rglob("*") if path.stat().st_mode & 0o222]


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """A file in the way is an error, not a silent nothing."""
    (tmp_path / "agent").write_text("in the way")
    with pytest.raises(OSError, match="agent"):
        payload.install(tmp_path / "agent")


def test_half_a_copy_of_a_killed_installer_is_swept(tmp_path: Path) -> None:
    """What an installer left is removed; a finished copy stays."""
    folder = payload.install(tmp_path / "agent")
    half = tmp_path / "agent" / "unfinished-1"
    (half / "sandbox_sdk").mkdir(parents=True)
    (half / "sandbox_sdk").chmod(0o555)
    payload.sweep(tmp_path / "agent")
    assert list((tmp_path / "agent").iterdir()) == [folder]
