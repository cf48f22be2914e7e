"""Make the system calls by which kernels are attacked: none is needed by a program of a sandbox."""

from __future__ import annotations

import ctypes
import os

from tried import MACHINE, attempt, call, tell

IO_URING_SETUP, PIDFD_GETFD = 425, 438
NUMBERS = {
    "x86_64": {
        "userfaultfd": 323, "bpf": 321, "perf_event_open": 298, "keyctl": 250, "add_key": 248,
        "request_key": 249, "fanotify_init": 300, "kcmp": 312, "init_module": 175,
        "clock_adjtime": 305, "personality": 135, "swapon": 167, "acct": 163, "syslog": 103,
    },
    "aarch64": {
        "userfaultfd": 282, "bpf": 280, "perf_event_open": 241, "keyctl": 219, "add_key": 217,
        "request_key": 218, "fanotify_init": 262, "kcmp": 272, "init_module": 105,
        "clock_adjtime": 266, "personality": 92, "swapon": 224, "acct": 89, "syslog": 116,
    },
}[MACHINE]  # fmt: skip
USER_MODE_ONLY = 1
KEYCTL_GET_KEYRING_ID, SESSION_KEYRING = 0, -3
PERF_SOFTWARE, PERF_SIZE, PERF_EXCLUDE_KERNEL = 1, 112, 1 << 5
ADJ_SETOFFSET = 0x100


def close(descriptor: int) -> None:
    """Close a descriptor that a call gave."""
    os.close(descriptor)


def perf_event() -> None:
    """Count this process's own task clock, in user mode only."""
    attributes = ctypes.create_string_buffer(PERF_SIZE)
    ctypes.c_uint32.from_buffer(attributes).value = PERF_SOFTWARE
    ctypes.c_uint32.from_buffer(attributes, 4).value = PERF_SIZE
    ctypes.c_uint64.from_buffer(attributes, 8).value = 1  # task clock
    ctypes.c_uint64.from_buffer(attributes, 40).value = PERF_EXCLUDE_KERNEL
    close(call(NUMBERS["perf_event_open"], attributes, 0, -1, -1, 0))


def bpf_map() -> None:
    """Make a map with one entry."""
    attributes = ctypes.create_string_buffer(128)
    for offset, value in ((0, 2), (4, 4), (8, 4), (12, 1)):  # an array of one number
        ctypes.c_uint32.from_buffer(attributes, offset).value = value
    close(call(NUMBERS["bpf"], 0, attributes, 128))


def add_key() -> None:
    """Add a key to the process's own keyring."""
    call(NUMBERS["add_key"], b"user", b"attack", b"x", 1, -2)


def move_clock() -> None:
    """Move the host's clock, by nothing."""
    change = ctypes.create_string_buffer(208)
    ctypes.c_uint32.from_buffer(change).value = ADJ_SETOFFSET
    call(NUMBERS["clock_adjtime"], 0, change)


attempt("io_uring_setup", lambda: close(call(IO_URING_SETUP, 4, ctypes.create_string_buffer(120))))
attempt("userfaultfd", lambda: close(call(NUMBERS["userfaultfd"], USER_MODE_ONLY)))
attempt("perf_event_open", perf_event)
attempt("keyctl", lambda: call(NUMBERS["keyctl"], KEYCTL_GET_KEYRING_ID, SESSION_KEYRING, 1))
attempt("add_key", add_key)
attempt("bpf", bpf_map)
attempt("fanotify_init", lambda: close(call(NUMBERS["fanotify_init"], 0, 0)))
attempt("kcmp", lambda: call(NUMBERS["kcmp"], os.getpid(), os.getpid(), 0, 1, 1))
attempt("clock_adjtime", move_clock)
attempt("syslog", lambda: call(NUMBERS["syslog"], 10, None, 0))
tell()
