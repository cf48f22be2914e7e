"""Search all memory of this process for what looks like a canary, and tell what was found.

Runs in a Python that a zygote or agent forked, not in one of its own: so it is given as code.
"""

from __future__ import annotations

import gc
import json
import re
import sys

# Written so that no text of this program is itself what it looks for.
PATTERN = re.compile(rb"(?:canary_[a-z]+_|sb_)[0-9a-z]{26}")
found: set[str] = set()
with open("/proc/self/maps") as lines:
    areas = [line.split() for line in lines]
with open("/proc/self/mem", "rb", buffering=0) as memory:
    for words in areas:
        start, end = (int(number, 16) for number in words[0].split("-"))
        if "r" not in words[1] or words[-1] in ("[vvar]", "[vsyscall]"):
            continue
        try:
            memory.seek(start)
            data = memory.read(end - start)
        except (OSError, ValueError, OverflowError):
            continue  # an area that the kernel keeps to itself
        found.update(match.decode() for match in PATTERN.findall(data or b""))
for thing in gc.get_objects():
    if isinstance(thing, dict | list | tuple | set):
        found.update(match.decode() for match in PATTERN.findall(repr(thing).encode()))
sys.stdout.write(json.dumps({"found": " ".join(sorted(found))}) + "\n")
