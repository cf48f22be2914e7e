"""Change all of each file given but its content: what is set is what was there."""

from __future__ import annotations

import os
import sys

from tried import attempt, tell


def link(path: str) -> None:
    """Give the file a second name, and take it away."""
    os.link(path, f"{path}-linked")
    os.unlink(f"{path}-linked")


for path in sys.argv[1:]:
    attempt(f"length of {path}", lambda: os.truncate(path, os.path.getsize(path)))
    attempt(f"mode of {path}", lambda: os.chmod(path, 0o777))
    attempt(f"owner of {path}", lambda: os.chown(path, os.getuid(), -1))
    attempt(f"times of {path}", lambda: os.utime(path))
    attempt(f"attributes of {path}", lambda: os.setxattr(path, "user.attack", b"1"))
    attempt(f"name of {path}", lambda: os.rename(path, path))
    attempt(f"names of {path}", lambda: link(path))
tell()
