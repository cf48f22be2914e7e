"""Look for a control group whose files can be written."""

from __future__ import annotations

import os

from tried import attempt, open_and_close, record, tell

with open("/proc/self/mountinfo") as lines:
    mounts = [line.split() for line in lines]
groups = [words[4] for words in mounts if words[words.index("-") + 1].startswith("cgroup")]
record("mounts", " ".join(groups))
for folder in (*groups, "/sys/fs/cgroup"):
    attempt(folder, lambda: open_and_close(f"{folder}/cgroup.procs", os.O_WRONLY))
with open("/proc/self/cgroup") as lines:
    record("paths", " ".join(line.strip().split(":", 2)[2] for line in lines))
tell()
