"""Leave a process behind: in a session of its own, with the argument given, for ten minutes."""

from __future__ import annotations

import subprocess
import sys

from tried import attempt, tell

SLEEP = "import sys, time; sys.argv[1:]; time.sleep(600)"


def leave() -> None:
    """Start a process that does not end with this one."""
    subprocess.Popen(
        [sys.executable, "-c", SLEEP, sys.argv[1]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


attempt("leave", leave)
tell()
