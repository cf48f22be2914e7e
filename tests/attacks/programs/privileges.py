"""Gain privileges by running a program with a setuid bit, the one given.

The dynamic loader tells: it heeds ``LD_DEBUG`` only in a program that gains nothing over its
caller.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

from tried import attempt, record, tell

(program,) = sys.argv[1:]
if os.geteuid() == 0:  # root gains nothing by a setuid bit
    os.setresuid(65534, 65534, 65534)
mode = os.stat(program).st_mode
done = subprocess.run(
    [program, "--help"],
    env={"LD_DEBUG": "statistics", "PATH": "/usr/bin:/bin"},
    capture_output=True,
    stdin=subprocess.DEVNULL,
    check=False,
)
gained = bool(mode & stat.S_ISUID) and b"relocation" not in done.stdout + done.stderr
record("gained", str(gained))
fields = dict(
    line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line
)
record("no new privileges", fields["NoNewPrivs"].strip())
for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
    record(name, fields[name].strip())
with open("/proc/self/mountinfo") as lines:
    points = [line.split()[4] for line in lines if "nosuid" not in line.split()[5].split(",")]
record("mounts with setuid", " ".join(points))
attempt("become root", lambda: os.setuid(0))
tell()
