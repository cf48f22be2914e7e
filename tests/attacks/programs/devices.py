"""Make device files and open the host's."""

from __future__ import annotations

import os
import stat

from tried import attempt, open_and_close, record, tell, word

DISK, MEMORY, KVM = os.makedev(254, 0), os.makedev(1, 1), os.makedev(10, 232)

for name, kind, device in (
    ("disk", stat.S_IFBLK, DISK),
    ("memory", stat.S_IFCHR, MEMORY),
    ("kvm", stat.S_IFCHR, KVM),
):
    attempt(f"make {name}", lambda: os.mknod(f"made-{name}", kind | 0o600, device))
for path in ("/dev/mem", "/dev/kmsg", "/dev/kvm", "/dev/vda", "/dev/sda", "/dev/nvme0n1",
             "/dev/loop0", "/dev/fuse", "/dev/net/tun", "/dev/vsock"):  # fmt: skip
    attempt(path, lambda: open_and_close(path, os.O_RDONLY))
try:
    record("all", " ".join(sorted(os.listdir("/dev"))))
except OSError as error:
    record("all", word(error))
tell()
