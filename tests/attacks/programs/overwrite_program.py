"""Overwrite programs through ``/proc/<pid>/exe``: held while they run, written once they end.

Without arguments the targets are this interpreter, a child's and PID 1's; else a program given.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tried import attempt, open_and_close, tell


def overwrite_after_end(program: str) -> None:
    """Hold a program's file by its process's magic link, and open it to write when it ended."""
    with subprocess.Popen([program, "30"], stderr=subprocess.DEVNULL) as process:
        held = os.open(f"/proc/{process.pid}/exe", os.O_RDONLY)
        process.kill()
        process.wait()
    try:
        open_and_close(f"/proc/self/fd/{held}", os.O_WRONLY)
    finally:
        os.close(held)


for program in sys.argv[1:] or [sys.executable, "/usr/bin/sleep"]:
    attempt(program, lambda: overwrite_after_end(program))
for pid in ("1", "self"):
    attempt(f"/proc/{pid}/exe", lambda: open_and_close(f"/proc/{pid}/exe", os.O_WRONLY))
tell()
