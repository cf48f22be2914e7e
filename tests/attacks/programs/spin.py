"""Use processors: reach for more of them and for a better place, then count what was had.

The argument is how many processes spin, for a second.
"""

from __future__ import annotations

import os
import sys
import time

from tried import attempt, record, tell

attempt("nicer", lambda: os.setpriority(os.PRIO_PROCESS, 0, -20))
attempt("real time", lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)))
attempt("all cores", lambda: os.sched_setaffinity(0, range(os.cpu_count() or 1)))
began = time.monotonic()
for _ in range(int(sys.argv[1])):
    if os.fork() == 0:
        while time.monotonic() < began + 1:
            pass
        os._exit(0)
for _ in range(int(sys.argv[1])):
    os.wait()
used = os.times()
record("share", str((used.children_user + used.children_system) / (time.monotonic() - began)))
tell()
