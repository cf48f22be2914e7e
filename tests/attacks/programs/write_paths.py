"""Open each path given for writing, changing nothing; make and remove a file in each folder."""

from __future__ import annotations

import os
import sys

from tried import attempt, open_and_close, tell


def write_into(folder: str) -> None:
    """Make a file in a folder and remove it."""
    path = f"{folder}/written-by-an-attack"
    open_and_close(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    os.unlink(path)


for path in sys.argv[1:]:
    if os.path.isdir(path):
        attempt(path, lambda: write_into(path))
    else:
        attempt(path, lambda: open_and_close(path, os.O_WRONLY | os.O_APPEND))
tell()
