"""Trace, read and take from a process of one's own, started for that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

program = str(Path(__file__).parent / "host_process.py")
with subprocess.Popen([sys.executable, "-c", "input()", "sibling"], stdin=-1) as victim:
    subprocess.run([sys.executable, program, str(victim.pid), "sibling"], check=True)
    victim.communicate(b"\n")
