"""Overwrite programs through ``/proc/<pid>/exe``: held while they run, written once they end.

The targets are the programs and the processes given; without programs, this interpreter and one
of the system, and this process always.
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


pids = [word for word in sys.argv[1:] if word.isdigit()]
programs = [word for word in sys.argv[1:] if not word.isdigit()]
for program in programs or [sys.executable, "/usr/bin/sleep"]:
    attempt(program, lambda: overwrite_after_end(program))
for pid in (*pids, "self"):
    attempt(f"/proc/{pid}/exe", lambda: open_and_close(f"/proc/{pid}/exe", os.O_WRONLY))
tell()
