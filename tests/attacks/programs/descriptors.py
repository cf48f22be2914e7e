"""Look for descriptors that lead out: own ones, and those of other processes.

Arguments are the processes; without any, all that ``/proc`` shows.
"""

from __future__ import annotations

import os
import sys

from tried import attempt, record, tell

pids = sys.argv[1:] or [name for name in os.listdir("/proc") if name.isdigit()]
for descriptor in sorted(map(int, os.listdir("/proc/self/fd"))):
    try:
        record(f"own {descriptor}", os.readlink(f"/proc/self/fd/{descriptor}"))
        record(f"names in {descriptor}", " ".join(os.listdir(descriptor)))
    except OSError:
        continue  # closed by now, as the listing's own, or no folder
for pid in pids:
    if int(pid) != os.getpid():
        attempt(f"{pid} fd", lambda: os.listdir(f"/proc/{pid}/fd"))
tell()
