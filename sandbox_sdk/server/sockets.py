"""Where a server listens: a Unix socket of its user alone, or TCP."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import ssl
import stat
from pathlib import Path

from sandbox_sdk.errors import ConfigError, StateError

_BACKLOG = 1024
_NO_PASSWORD = ""  # without one OpenSSL would ask at the terminal, and the server wait


def listen_unix(path: Path) -> socket.socket:
    """Return a socket that listens at a path which only this user reaches.

    The folder is made 0700 if it is missing; a socket that a dead server left is replaced.

    Raises:
        ConfigError: Others may enter the folder, a server listens there, or the path is too long.
        StateError: The host refused.
    """
    path = path.absolute()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _require_private(path.parent)
        _remove_stale(path)
        listening.bind(os.fspath(path))
        path.chmod(0o600)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        if isinstance(error, StateError):
            raise
        raise StateError(
            f"{path} cannot be listened at: {error}; name another socket", errno=error.errno
        ) from error
    except BaseException:
        listening.close()
        raise
    listening.setblocking(False)
    return listening


def listen_tcp(host: str, port: int, *, is_protected: bool) -> socket.socket:
    """Return a socket that listens at a TCP address.

    Args:
        host: An IP address.
        port: 0 is one that is free.
        is_protected: Whether TLS is spoken here or before here; else it is loopback or nothing.

    Raises:
        ConfigError: The address is none, or open to others without TLS.
        StateError: The host refused.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise ConfigError(f"host: must be an IP address, not {host[:60]!r}") from None
    if not (address.is_loopback or is_protected):
        raise ConfigError(
            f"host: {host} is reached by others, who would see keys in clear: give --tls-cert and "
            "--tls-key, or --behind-proxy where a proxy speaks TLS"
        )
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise StateError(
            f"{host}:{port} cannot be listened at: {error}; name another port", errno=error.errno
        ) from error
    listening.setblocking(False)
    return listening


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return how TLS is spoken with a certificate.

    Raises:
        ConfigError: The files are none that can be used.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    reload_tls(context, certificate, key)
    return context


def reload_tls(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Take a certificate anew from its files, for connections to come.

    Raises:
        ConfigError: The files are none that can be used; the former certificate stays.
    """
    try:
        # First where nothing is lost: a context that refuses a pair has given up its former key.
        for each in (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), context):
            each.load_cert_chain(certificate, key, password=_NO_PASSWORD)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{certificate} and {key} cannot be used for TLS: {error}") from error


def _require_private(folder: Path) -> None:
    found = folder.stat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise ConfigError(
            f"others may enter {folder} (user {found.st_uid}, mode "
            f"{stat.S_IMODE(found.st_mode):04o}): put the socket into a folder of your own with "
            "mode 0700"
        )


def _remove_stale(path: Path) -> None:
    """Remove a socket at which nobody listens.

    Raises:
        ConfigError: Somebody does, or it is no socket.
    """
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ConfigError(f"{path} is there, and is no socket: name another")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(os.fspath(path))
        except OSError as error:
            if error.errno not in (errno.ECONNREFUSED, errno.ENOENT):
                raise
        else:
            raise ConfigError(f"a server listens at {path} already: name another socket")
    path.unlink(missing_ok=True)
