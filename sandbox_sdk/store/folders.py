"""The state folder: where records, workspaces, runs and models lie on this machine.

    state.db            sandboxes, leases and runs
    owners/             one locked file per process that holds sandboxes
    ready/<name>/       workspaces of sandboxes that stand ready and are nobody's yet
    sandboxes/<id>/     one folder per sandbox; its files lie in workspace/,
                        or sealed in workspace.sealed
    runs/<id>/          one folder per experiment run
    models/             model files that were installed
    keys/               keys, wrapped under the master key
    audit/              the audit log, where one is written
    templates/          Python environments for sandboxes, by digest
    agent/              copies of the program that runs inside, by digest
    uids/               lock files of the user ids in use
    remote/<id>/        what a server is not told of a sandbox that it has
    auth/               a server's keys, and its tenants, API keys, clients and sessions

Only its owner may enter it, and it must lie on this machine's own disk: SQLite's locks and shared
memory do not hold across a network.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path

import attrs

from sandbox_sdk.errors import SandboxNotFound, StateError

NETWORK_FILE_SYSTEMS = frozenset(
    {
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "fuse.ceph-fuse",
        "fuse.glusterfs",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.sshfs",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "smb3",
        "smbfs",
    }
)
"""File systems on which a state folder is refused, by the kernel's name of their type."""

_ID = re.compile(r"[a-z]{1,8}_[0-9a-z]{26}")
_FOLDERS = (
    "owners",
    "ready",
    "sandboxes",
    "runs",
    "models",
    "templates",
    "keys",
    "agent",
    "uids",
    "auth",
    "remote",
)


@attrs.frozen
class StateFolders:
    """The paths inside one state folder.

    Attributes:
        root: The state folder, absolute and without symbolic links.
    """

    root: Path

    @classmethod
    def open(cls, state_dir: Path | None = None) -> StateFolders:
        """Return the state folder, made if it is missing, proven private and local.

        Args:
            state_dir: The folder; ``None`` is ``sandbox-sdk`` in the user's data folder.

        Raises:
            StateError: It cannot be made, belongs to somebody else, others may write to it, or it
                lies on a network file system.
        """
        root = default_state_dir() if state_dir is None else state_dir
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            root = root.resolve(strict=True)
            _require_private(root)
            _require_local(root)
            for name in _FOLDERS:
                folder = root / name
                folder.mkdir(mode=0o700, exist_ok=True)
                _require_private(folder)
        except OSError as error:
            if isinstance(error, StateError):
                raise
            raise state_error(error, f"the state folder {root} cannot be used") from error
        return cls(root)

    @property
    def database(self) -> Path:
        """The SQLite file of records."""
        return self.root / "state.db"

    @property
    def owners(self) -> Path:
        """The folder of the lock files of live owners."""
        return self.root / "owners"

    @property
    def runs(self) -> Path:
        """The folder of runs."""
        return self.root / "runs"

    @property
    def models(self) -> Path:
        """The folder of installed model files."""
        return self.root / "models"

    @property
    def templates(self) -> Path:
        """The folder of built templates."""
        return self.root / "templates"

    @property
    def keys(self) -> Path:
        """The folder of keys."""
        return self.root / "keys"

    @property
    def ready(self) -> Path:
        """The folder of workspaces of sandboxes that are nobody's yet."""
        return self.root / "ready"

    @property
    def agent(self) -> Path:
        """The folder of copies of the program that runs inside."""
        return self.root / "agent"

    @property
    def uids(self) -> Path:
        """The folder of the lock files of user ids in use."""
        return self.root / "uids"

    @property
    def auth(self) -> Path:
        """The folder of a server's credentials; empty where there is none."""
        return self.root / "auth"

    @property
    def known_workers(self) -> Path:
        """The file of the servers' workers that were met, with their keys."""
        return self.root / "known_workers"

    def remote(self, id: str) -> Path:
        """Return the folder of what is kept here of a server's sandbox, which may not exist.

        Raises:
            SandboxNotFound: The id is none that the SDK made.
        """
        return self.root / "remote" / _checked(id)

    def sandbox(self, id: str) -> Path:
        """Return a sandbox's folder, which may not exist.

        Raises:
            SandboxNotFound: The id is none that the SDK made.
        """
        return self.root / "sandboxes" / _checked(id)

    def workspace(self, id: str) -> Path:
        """Return the folder of a sandbox's files, which may not exist.

        Raises:
            SandboxNotFound: The id is none that the SDK made.
        """
        return self.sandbox(id) / "workspace"

    def run(self, id: str) -> Path:
        """Return a run's folder, which may not exist.

        Raises:
            SandboxNotFound: The id is none that the SDK made.
        """
        return self.runs / _checked(id)

    def sandbox_folders(self) -> list[Path]:
        """Return the folders of all sandboxes."""
        return list((self.root / "sandboxes").iterdir())

    def take_over(self, ready: Path, id: str) -> Path:
        """Make a folder of ``ready`` a sandbox's own, and return its workspace.

        Raises:
            StateError: The sandbox has one, or the host refused.
        """
        folder = self.sandbox(id)
        try:
            ready.rename(folder)
        except OSError as error:
            raise state_error(error, f"{folder} cannot be made") from error
        return self.workspace(id)

    def make_workspace(self, id: str) -> Path:
        """Return the folder of a sandbox's files, made if it is missing.

        Code inside owns it and may have shut it; it is opened again for its owner.

        Raises:
            SandboxNotFound: The id is none that the SDK made.
            StateError: It cannot be made.
        """
        workspace = self.workspace(id)
        try:
            workspace.mkdir(mode=0o700, parents=True, exist_ok=True)
            workspace.chmod(workspace.stat().st_mode | 0o700)
        except OSError as error:
            raise state_error(error, f"the workspace {workspace} cannot be made") from error
        return workspace


def default_state_dir() -> Path:
    """Return the state folder of a user who named none."""
    # Imported on use, as most callers name a folder or never open one.
    from platformdirs import user_data_path

    return user_data_path("sandbox-sdk", appauthor=False)


def state_error(error: OSError, what: str, sandbox_id: str | None = None) -> StateError:
    """Return the ``StateError`` for what the kernel refused."""
    number = error.errno
    advice = {
        errno.ENOSPC: "; free space on that disk, or set state_dir to a folder on another",
        errno.EDQUOT: "; the disk quota is used up: free space, or set state_dir",
        errno.EACCES: "; set state_dir (or SANDBOX_STATE_DIR) to a folder of yours",
        errno.EROFS: "; set state_dir (or SANDBOX_STATE_DIR) to a folder that can be written",
    }.get(number or 0, "")
    reason = os.strerror(number) if number else str(error)
    return StateError(f"{what}: {reason}{advice}", errno=number, sandbox_id=sandbox_id)


def file_system(path: Path, mountinfo: str | None = None) -> str:
    """Return the kernel's name of the file system's type that holds a resolved path.

    Args:
        path: An absolute path without symbolic links.
        mountinfo: The text of ``/proc/self/mountinfo``; ``None`` reads it.

    Source: proc_pid_mountinfo(5).
    """
    text = Path("/proc/self/mountinfo").read_text() if mountinfo is None else mountinfo
    best, kind = -1, "unknown"
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        # The kernel writes space, tab, newline and backslash as octal escapes.
        point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), left.split()[4])
        # A later mount on the same point covers the earlier one, hence >=.
        if path.is_relative_to(point) and len(point) >= best:
            best, kind = len(point), right.split()[0]
    return kind


def _require_private(folder: Path) -> None:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise StateError(f"{folder} is not a folder; move it away", errno=errno.ENOTDIR)
    if found.st_uid != os.geteuid():
        raise StateError(
            f"{folder} belongs to user {found.st_uid}, and this process is user {os.geteuid()}: "
            "another user could change records and workspaces; set state_dir to a folder of yours",
            errno=errno.EPERM,
        )
    if found.st_mode & 0o022:
        raise StateError(
            f"{folder} can be written by other users (mode {stat.S_IMODE(found.st_mode):04o}); "
            f"run: chmod 700 {folder}",
            errno=errno.EPERM,
        )


def _require_local(root: Path) -> None:
    kind = file_system(root)
    if kind in NETWORK_FILE_SYSTEMS:
        raise StateError(
            f"{root} lies on a network file system ({kind}), where SQLite's locks do not hold; "
            "set state_dir (or SANDBOX_STATE_DIR) to a folder on a local disk",
            errno=errno.ENOTSUP,
        )


def _checked(id: str) -> str:
    if _ID.fullmatch(id):
        return id
    raise SandboxNotFound(f"there is no {id[:60]!r} here: no id that this SDK made looks so")
