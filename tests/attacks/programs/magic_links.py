"""Follow the magic links of other processes to the path given below them.

Arguments are the path and the processes; without processes, all that ``/proc`` shows.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tried import record, tell, word

path = sys.argv[1]
pids = sys.argv[2:] or [name for name in os.listdir("/proc") if name.isdigit()]
for pid in pids:
    for link in ("root", "cwd"):
        try:
            record(f"{pid} {link}", Path(f"/proc/{pid}/{link}/{path}").read_text())
        except OSError as error:
            record(f"{pid} {link}", word(error))
tell()
