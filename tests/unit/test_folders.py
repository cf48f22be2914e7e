"""The state folder is private, local and complete, or it is refused."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from sandbox_sdk.errors import SandboxNotFound, StateError
from sandbox_sdk.store import folders as module
from sandbox_sdk.store.folders import StateFolders, default_state_dir, file_system
from sandbox_sdk.values import new_id

MOUNTS = r"""
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 21 0:40 / /home rw,relatime shared:9 - nfs4 server:/home rw
31 30 0:41 / /home/local rw - xfs /dev/sdb rw
32 21 0:42 / /mnt/with\040space rw - cifs //server/share rw
33 21 0:43 / /data rw - ext4 /dev/sdc rw
34 33 0:44 / /data rw - fuse.sshfs server: rw
"""


def test_it_is_made_with_all_its_folders_for_its_owner_only(tmp_path: Path) -> None:
    folders = StateFolders.open(tmp_path / "a" / "state")
    assert folders.root == (tmp_path / "a" / "state").resolve()
    made = [folders.root, folders.owners, folders.models, folders.agent, folders.uids]
    for folder in (*made, folders.root / "sandboxes", folders.root / "runs"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert StateFolders.open(folders.root) == folders


def test_a_narrow_umask_does_not_break_it(tmp_path: Path) -> None:
    before = os.umask(0o000)
    try:
        root = StateFolders.open(tmp_path / "state").root
    finally:
        os.umask(before)
    assert stat.S_IMODE(root.stat().st_mode) == 0o700


def test_the_default_is_the_users_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/somewhere")
    assert default_state_dir() == Path("/somewhere/sandbox-sdk")


def test_a_symbolic_link_of_the_user_is_followed_once(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    assert StateFolders.open(tmp_path / "link").root == (tmp_path / "real").resolve()


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777, 0o1777])
def test_a_folder_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    root = tmp_path / "state"
    root.mkdir()
    root.chmod(mode)
    with pytest.raises(StateError, match="chmod 700"):
        StateFolders.open(root)
    assert list(root.iterdir()) == []


def test_a_folder_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(StateError, match="belongs to user") as caught:
        StateFolders.open(tmp_path)
    assert caught.value.errno == errno.EPERM


def test_a_folder_inside_that_was_replaced_by_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    StateFolders.open(tmp_path / "state")
    (tmp_path / "state" / "sandboxes").rmdir()
    (tmp_path / "state" / "sandboxes").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateError, match="is not a folder"):
        StateFolders.open(tmp_path / "state")


def test_a_file_in_its_place_is_a_state_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateError) as caught:
        StateFolders.open(tmp_path / "file")
    assert caught.value.errno == errno.EEXIST
    with pytest.raises(StateError) as caught:
        StateFolders.open(tmp_path / "file" / "state")
    assert caught.value.errno == errno.ENOTDIR


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/etc", "ext4"),
        ("/home", "nfs4"),
        ("/home/me/.local", "nfs4"),
        ("/homes/me", "ext4"),
        ("/home/local/me", "xfs"),
        ("/mnt/with space/x", "cifs"),
        ("/data/x", "fuse.sshfs"),
    ],
)
def test_the_file_system_is_that_of_the_nearest_and_last_mount(path: str, kind: str) -> None:
    assert file_system(Path(path), MOUNTS.strip()) == kind


def test_the_file_system_of_this_kernels_proc_is_found() -> None:
    assert file_system(Path("/proc/self")) == "proc"


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NETWORK_FILE_SYSTEMS", {file_system(tmp_path)})
    with pytest.raises(StateError, match="network file system"):
        StateFolders.open(tmp_path / "state")


@pytest.mark.parametrize(
    "id", ["", "..", "../..", "a/b", "sandbox-id", "sb_" + "a" * 25, "sb_" + "a" * 26 + "\n", "/"]
)
def test_an_id_is_never_a_path(tmp_path: Path, id: str) -> None:
    folders = StateFolders(tmp_path)
    for path in (folders.sandbox, folders.workspace, folders.run, folders.make_workspace):
        with pytest.raises(SandboxNotFound):
            path(id)


def test_a_workspace_is_made_once_and_stays(tmp_path: Path) -> None:
    folders = StateFolders.open(tmp_path / "state")
    sandbox_id = new_id("sb")
    workspace = folders.make_workspace(sandbox_id)
    (workspace / "file").touch()
    assert (
        folders.make_workspace(sandbox_id) == workspace == folders.sandbox(sandbox_id) / "workspace"
    )
    assert (workspace / "file").exists()


def test_ids_are_unique_and_sort_by_time() -> None:
    ids = [new_id("sb") for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(len(made) == 29 and made.startswith("sb_") for made in ids)
    times = [made[3:13] for made in ids]
    assert times == sorted(times)
