"""Crash with the largest core dump the kernel permits, and tell whether one was made."""

from __future__ import annotations

import os
import resource
import signal

from tried import record, tell

UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)

record("limit", repr(resource.getrlimit(resource.RLIMIT_CORE)))
try:
    resource.setrlimit(resource.RLIMIT_CORE, UNLIMITED)
    record("raise limit", "worked")
except ValueError:  # Python's word for a refused raise
    record("raise limit", "EPERM")
hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
child = os.fork()
if child == 0:
    os.kill(os.getpid(), signal.SIGSEGV)
_, status = os.waitpid(child, 0)
record("dumped", str(os.WCOREDUMP(status)))
for name in os.listdir():
    if name.startswith("core"):
        record("file", name)
        os.unlink(name)
tell()
