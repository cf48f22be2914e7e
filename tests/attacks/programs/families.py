"""Make a socket of every family and protocol that leads past a network namespace or deep inside.

Those of an own user namespace come last, where a process has power over its own network.
"""

from __future__ import annotations

import os
import socket

from tried import CLONE_NEWNET, CLONE_NEWUSER, attempt, attempt_in_child, check, libc, tell

RAW, DGRAM, STREAM, SEQPACKET = 3, 2, 1, 5
SOCKETS = {
    "vsock": (40, STREAM, 0),
    "alg": (38, SEQPACKET, 0),
    "packet": (17, RAW, 0x300),
    "raw": (2, RAW, 1),
    "raw over IPv6": (10, RAW, 58),
    "key": (15, RAW, 2),
    "bluetooth": (31, RAW, 1),
    "can": (29, RAW, 1),
    "tipc": (30, STREAM, 0),
    "rxrpc": (33, DGRAM, 2),
    "kcm": (41, DGRAM, 0),
    "qipcrtr": (42, DGRAM, 0),
    "smc": (43, STREAM, 0),
    "xdp": (44, RAW, 0),
    "mctp": (45, DGRAM, 0),
    "netlink route": (16, RAW, 0),
    "netlink diag": (16, RAW, 4),
    "netlink xfrm": (16, RAW, 6),
    "netlink audit": (16, RAW, 9),
    "netlink netfilter": (16, RAW, 12),
    "netlink uevent": (16, RAW, 15),
    "netlink generic": (16, RAW, 16),
}


def make(family: int, kind: int, protocol: int) -> None:
    """Make a socket and close it."""
    socket.socket(family, kind, protocol).close()


def make_in_own_network(family: int, kind: int, protocol: int) -> None:
    """Make one where this process has every right over the network, if that can be had."""
    check(libc.unshare(CLONE_NEWUSER | CLONE_NEWNET))
    make(family, kind, protocol)


for name, what in SOCKETS.items():
    attempt(name, lambda: make(*what))
for name in ("netlink netfilter", "netlink xfrm", "packet"):
    what = SOCKETS[name]
    attempt_in_child(f"{name} of an own network", lambda: make_in_own_network(*what))
attempt("unix", lambda: os.close(socket.socket(socket.AF_UNIX).detach()))
tell()
