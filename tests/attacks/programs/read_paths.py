"""Read each path given, plainly and through every detour a path can take."""

from __future__ import annotations

import os
import sys

from tried import attempt, record, tell, word


def read(path: str) -> str:
    """Return a file's text, or a folder's names."""
    if os.path.isdir(path):
        return " ".join(os.listdir(path))
    with open(path) as file:
        return file.read()


for number, path in enumerate(sys.argv[1:]):
    link = f"link-{number}"
    attempt(f"link {path}", lambda: os.symlink(path, link))
    ways = (path, link, f"/proc/self/root{path}", f"/proc/self/cwd/../../../../../../../..{path}")
    for way in ways:
        try:
            record(f"read {way}", read(way))
        except OSError as error:
            record(f"read {way}", word(error))
tell()
