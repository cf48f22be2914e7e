"""A copy of a database that others write meanwhile, as of one moment.

The files are not copied as they lie: what a log beside them holds would be missing or torn.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from sandbox_sdk.durable import sync_folder
from sandbox_sdk.errors import StateError
from sandbox_sdk.store.connection import BUSY_SECONDS, explain

NO_OWNER = (
    "UPDATE sandboxes SET state = 'lost' WHERE state = 'running'",
    "UPDATE sandboxes SET owner = NULL WHERE owner IS NOT NULL",
)
"""What makes a copy of ``state.db`` nobody's: what runs in the original runs not in the copy, and
whoever opens it must not clear up after an owner that lives."""


def copy_database(source: Path, target: Path, changes: Sequence[str] = ()) -> None:
    """Copy a database into a new file of mode 0600, durable on return. Blocks on the disk.

    Args:
        source: The database, which others may write.
        target: The copy.
        changes: Statements that are applied to it.

    Raises:
        StateError: The one cannot be read, or is damaged, or the other cannot be written.
    """
    try:
        os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        reading = sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)
        writing = sqlite3.connect(target, timeout=BUSY_SECONDS, isolation_level=None)
        with closing(reading), closing(writing):
            reading.backup(writing)
            # A copy has no other readers: without a log beside it, it is one file.
            writing.execute("PRAGMA journal_mode=DELETE")
            (found,) = writing.execute("PRAGMA integrity_check").fetchone()
            if found != "ok":
                raise StateError(f"{source} is damaged: {str(found)[:200]}")
            for change in changes:
                writing.execute(change)
        sync_folder(target.parent)
    except (sqlite3.Error, OSError) as error:
        if isinstance(error, StateError):
            raise
        raise explain(error, source) from error
