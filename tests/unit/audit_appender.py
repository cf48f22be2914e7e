"""A process that appends to an audit log: ``audit_appender.py STATE COUNT [stay]``."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from auditing import Bench

from sandbox_sdk.audit.writer import Pace

state, count, *stay = sys.argv[1:]
bench = Bench(Path(state), Pace(events=50, segment_bytes=200_000, seconds=3600.0))
sys.stdout.write("ready\n")
sys.stdout.flush()
sys.stdin.readline()
for _ in range(int(count) // 10):
    bench.write(10)
if stay:
    sys.stdout.write("written\n")
    sys.stdout.flush()
    signal.pause()
bench.writer.close()
