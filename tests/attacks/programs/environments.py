"""Look for a text in the environment and arguments of processes, and in what mounts tell.

Arguments are the text and the processes; without processes, all that ``/proc`` shows.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tried import record, tell, word

needle = sys.argv[1].encode()
pids = sys.argv[2:] or [name for name in os.listdir("/proc") if name.isdigit()]
# This program's own arguments hold the text.
own = str(os.getpid())
paths = [f"{pid}/{name}" for pid in pids for name in ("environ", "cmdline")]
for path in (*(path for path in paths if path != f"{own}/cmdline"), "self/mountinfo"):
    try:
        text = Path("/proc", path).read_bytes()
    except OSError as error:
        record(path, word(error))
    else:
        record(path, "found" if needle in text else "absent")
tell()
