"""A server's state as a folder that is one itself: to restore it is to serve it.

It holds what cannot be made anew: records, credentials, keys and the audit log, of every tenant.
Workspaces and what is built or fetched again are not in it.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from sandbox_sdk.auth.book import FILE as CREDENTIALS
from sandbox_sdk.auth.server_keys import FILE as SERVER_KEYS
from sandbox_sdk.durable import sync_folder, write_durably
from sandbox_sdk.engine.reaper import remove_tree
from sandbox_sdk.errors import StateError
from sandbox_sdk.store.backup import NO_OWNER, copy_database
from sandbox_sdk.store.folders import StateFolders, state_error

TENANTS = "tenants"
"""The folder of the tenants' state folders."""


def back_up(folders: StateFolders, target: Path) -> int:
    """Copy a server's state, which it may go on changing, whole or not at all. Blocks on the disk.

    Args:
        folders: The server's state folder.
        target: The new folder.

    Returns:
        How many files were written.

    Raises:
        StateError: The target is there already, or something cannot be read or written.
    """
    if target.exists():
        raise StateError(f"{target} exists and was not touched: name another folder")
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        draft.mkdir(mode=0o700)
        count = _copy(folders.root, draft)
        tenants = folders.root / TENANTS
        for tenant in sorted(tenants.iterdir()) if tenants.is_dir() else ():
            inner = draft / TENANTS / tenant.name
            inner.mkdir(mode=0o700, parents=True)
            inner.parent.chmod(0o700)
            count += _copy(tenant, inner)
        draft.rename(target)
        sync_folder(target.parent)
    except OSError as error:
        if isinstance(error, StateError):
            raise
        raise state_error(error, f"the backup {target} cannot be written") from error
    finally:
        remove_tree(draft)
    return count


def _copy(source: Path, target: Path) -> int:
    """Copy one state folder; the audit log after the records, which know no later event so."""
    count = 0
    for name, changes in (("state.db", NO_OWNER), (f"auth/{CREDENTIALS}", ())):
        if (source / name).exists():
            (target / name).parent.mkdir(mode=0o700, exist_ok=True)
            copy_database(source / name, target / name, changes)
            count += 1
    wanted = [source / "auth" / SERVER_KEYS, *(source / "keys").rglob("*")]
    for path in (*wanted, *(source / "audit").rglob("*")):
        if path.is_file() and not path.is_symlink():
            copied = target / path.relative_to(source)
            for folder in reversed(copied.relative_to(target).parents):
                (target / folder).mkdir(mode=0o700, exist_ok=True)
            write_durably(copied, path.read_bytes())
            count += 1
    return count
