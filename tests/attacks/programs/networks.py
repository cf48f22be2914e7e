"""Reach each address given as ``HOST,PORT``: connect to it, and send it a datagram."""

from __future__ import annotations

import socket
import sys

from tried import attempt, tell


def connect(family: socket.AddressFamily, host: str, port: int) -> None:
    """Connect, for at most a second."""
    with socket.socket(family) as connection:
        connection.settimeout(1)
        connection.connect((host, port))


def send(family: socket.AddressFamily, host: str, port: int) -> None:
    """Send a datagram."""
    with socket.socket(family, socket.SOCK_DGRAM) as datagram:
        datagram.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        datagram.sendto(b"attack", (host, port))


for address in sys.argv[1:]:
    host, _, port = address.partition(",")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    attempt(f"tcp {host}", lambda: connect(family, host, int(port)))
    attempt(f"udp {host}", lambda: send(family, host, int(port)))
tell()
