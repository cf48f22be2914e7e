"""Open the kernel's switches for writing, and write nothing."""

from __future__ import annotations

import os

from tried import attempt, open_and_close, tell

PATHS = (
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/hostname",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/fs/binfmt_misc/register",
    "/proc/sysrq-trigger",
    "/proc/irq/default_smp_affinity",
    "/proc/bus/pci/devices",
    "/sys/kernel/uevent_helper",
    "/sys/kernel/mm/ksm/run",
)

for path in PATHS:
    attempt(path, lambda: open_and_close(path, os.O_WRONLY))
tell()
