"""What does not work in a sandbox at ``high``: programs that try, and what they are told."""

from __future__ import annotations

import attrs

from sandbox_sdk.isolation.walls import kernel
from sandbox_sdk.isolation.walls.syscalls import NUMBERS


@attrs.frozen
class Refusal:
    """One thing that a program cannot have.

    Attributes:
        program: Python code that asks for it.
        told: What the last line of its traceback must match.
    """

    program: str
    told: str


def call(name: str, *arguments: object) -> Refusal:
    """Return the refusal of a system call by the filter."""
    given = ", ".join(map(repr, (NUMBERS[kernel.MACHINE][name], *arguments)))
    program = f"""
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall({given}) < 0:
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
"""
    return Refusal(program, r"PermissionError: \[Errno 1\] Operation not permitted")


_NEW_USER_NAMESPACE, _RANDOMIZED_NO_MORE, _CREATE = 0x10000000, 0x0040000, 0o1600

REFUSALS = {
    "the Internet": Refusal(
        "import socket\nsocket.create_connection(('192.0.2.1', 443), timeout=5)",
        r"OSError: \[Errno 101\] Network is unreachable",
    ),
    "names of other machines": Refusal(
        "import socket\nsocket.getaddrinfo('example.com', 443)", r"socket.gaierror: \[Errno -\d+\]"
    ),
    "packages from an index": Refusal(
        "import subprocess, sys\n"
        "pip = [sys.executable, '-m', 'pip', 'install', '--retries=0', '--target=x', 'attrs']\n"
        "said = subprocess.run(pip, capture_output=True, text=True)\n"
        "raise OSError(said.stderr.splitlines()[-1])",
        "OSError: ERROR: No matching distribution found for attrs",
    ),
    "`ping` and other raw sockets": Refusal(
        "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)",
        r"PermissionError: \[Errno 1\]",
    ),
    "`ip`, node's `os.networkInterfaces()`": Refusal(
        "import socket\nsocket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)",
        r"OSError: \[Errno 97\] Address family not supported",
    ),
    "`ls /`": Refusal("import os\nos.listdir('/')", r"PermissionError: \[Errno 13\]"),
    "writing outside `/workspace`, `/tmp` and `/dev/shm`": Refusal(
        "open('/usr/made-by-a-test', 'w')", r"(PermissionError: \[Errno 13\]|OSError: \[Errno 30\])"
    ),
    "`/sys`": Refusal("open('/sys/devices/system/cpu/online')", "FileNotFoundError"),
    "devices of the host: disks, GPUs, `/dev/kvm`": Refusal(
        "open('/dev/kvm')", "FileNotFoundError"
    ),
    "device nodes": Refusal(
        "import os, stat\nos.mknod('null', stat.S_IFCHR | 0o666, os.makedev(1, 3))",
        r"PermissionError: \[Errno 1\]",
    ),
    "files of other users": Refusal(
        "import os\nopen('x', 'w').close()\nos.chown('x', 0, 0)", r"OSError: \[Errno 22\]"
    ),
    "`sudo`, `su`": Refusal("import os\nos.setuid(0)", r"OSError: \[Errno 22\]"),
    "debuggers and tracers: `gdb`, `strace`": call("ptrace", 0, 0, 0, 0),
    "what reads another process's memory: `py-spy`": call("process_vm_readv", 1, 0, 0, 0, 0, 0),
    "sandboxes inside: `bwrap`, `unshare`, browsers": call("unshare", _NEW_USER_NAMESPACE),
    "mounts, FUSE": call("mount", 0, 0, 0, 0, 0),
    "`perf`": call("perf_event_open", 0, 0, -1, -1, 0),
    "BPF": call("bpf", 0, 0, 0),
    "io_uring": call("io_uring_setup", 1, 0),
    "the kernel's older asynchronous files (libaio)": call("io_setup", 1, 0),
    "`userfaultfd`": call("userfaultfd", 1),
    "keyrings": call("add_key", b"user", b"x", b"y", 1, -3),
    "segments of System V": Refusal(
        call("shmget", 0, 4096, _CREATE).program, r"OSError: |PermissionError: "
    ),
    "queues of System V and POSIX": call("msgget", 0, _CREATE),
    "`setarch`": call("personality", _RANDOMIZED_NO_MORE),
    "NUMA placement: `numactl`": call("set_mempolicy", 0, 0, 0),
    "real-time priority": Refusal(
        "import os\nos.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))",
        r"PermissionError: \[Errno 1\]",
    ),
    "the host's name and clock": Refusal(
        "import socket\nsocket.sethostname('x')", r"PermissionError: \[Errno 1\]"
    ),
}
"""Row of the second table in docs/compatibility.md -> what is refused."""
