"""Fill a folder with what those who copy it trip over."""

from __future__ import annotations

import os
import stat

os.mkdir("odd")
os.chdir("odd")
os.mkfifo("pipe")
os.mknod("socket", stat.S_IFSOCK | 0o600)
for name in ("plain", "a" * 255, "two\nlines", "-rf", "\x1b[2J"):
    with open(name, "w") as file:
        file.write("x")
with open(b"no-text-\xff\xfe", "w") as file:
    file.write("x")
with open("sparse", "wb") as file:
    file.truncate(60 * 1024 * 1024)
os.link("plain", "linked")
os.symlink("/etc/passwd", "to a host file")
os.symlink(".", "loop")
os.mkdir("many")
for number in range(3000):
    os.symlink("x", f"many/{number}")
