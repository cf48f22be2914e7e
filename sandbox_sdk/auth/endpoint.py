"""Addresses of servers: credentials go out sealed by TLS, or do not leave the machine."""

from __future__ import annotations

import ipaddress
import re
from typing import Literal
from urllib.parse import SplitResult, urlsplit

import attrs

from sandbox_sdk.parse import fault

_NAME = re.compile(r"(?!-)[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63})*\.?", re.ASCII)
_LONGEST_SOCKET = 107  # bytes of a path that the kernel takes for a Unix socket


@attrs.frozen(kw_only=True)
class Endpoint:
    """A server's address.

    Attributes:
        scheme: ``https``, ``http`` (to this machine) or ``unix``.
        url: The address in its one form, without a slash at its end.
        host: The host; empty for a Unix socket.
        port: The port; ``None`` for a Unix socket.
        socket: The path of the Unix socket.
    """

    scheme: Literal["https", "http", "unix"]
    url: str
    host: str = ""
    port: int | None = None
    socket: str | None = None


def check_endpoint(url: str) -> Endpoint:
    """Return what an address means, if credentials may be sent there.

    ``https://`` goes anywhere, ``http://`` to a loopback address or ``localhost``, and ``unix://``
    to the socket of an absolute path. Nothing is looked up.

    Raises:
        ConfigError: It is none, has a user name, query or fragment, or is ``http://`` to another
            machine.
    """
    # Before it is split: the parser drops tabs and line ends without a word.
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise fault("endpoint", "must be of ASCII letters, digits and punctuation")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise fault("endpoint", f"is no address: {error}") from None
    if "@" in parts.netloc:
        raise fault("endpoint", "must hold no user name or password; set api_key instead")
    if "?" in url or "#" in url:
        raise fault("endpoint", "must have no query and no fragment")
    match parts.scheme:
        case "unix":
            return _unix(parts)
        case "https" | "http" as scheme:
            host = _host(parts)
            if scheme == "http" and not _is_loopback(host):
                raise fault(
                    "endpoint",
                    "http:// would send credentials in clear; write https://, or a loopback "
                    "address, or unix:///PATH",
                )
            port = port or (443 if scheme == "https" else 80)
            shown = f"[{host}]" if ":" in host else host
            path = parts.path.rstrip("/")
            return Endpoint(
                scheme=scheme, url=f"{scheme}://{shown}:{port}{path}", host=host, port=port
            )
        case _:
            raise fault("endpoint", "must begin with https://, http:// or unix://")


def _unix(parts: SplitResult) -> Endpoint:
    if parts.netloc or not parts.path.startswith("/") or parts.path.endswith("/"):
        raise fault("endpoint", "must be unix:// and an absolute path: unix:///run/sandbox.sock")
    if len(parts.path) > _LONGEST_SOCKET:
        raise fault("endpoint", f"a socket's path has at most {_LONGEST_SOCKET} bytes")
    return Endpoint(scheme="unix", url=f"unix://{parts.path}", socket=parts.path)


def _host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    if ":" in host:
        try:
            address = ipaddress.IPv6Address(host)
        except ValueError:
            raise fault("endpoint", "has no IPv6 address between its brackets") from None
        if address.scope_id is not None:
            raise fault("endpoint", "names an interface of this machine, which no other has")
        return str(address)
    if not _NAME.fullmatch(host):
        raise fault("endpoint", "has no host of letters, digits, dots and hyphens")
    return host


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a name, or a number that only some resolvers take for an address
        return False
    return address.is_loopback and getattr(address, "ipv4_mapped", None) is None
