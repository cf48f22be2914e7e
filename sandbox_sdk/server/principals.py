"""Who calls: by the operating system's word at a Unix socket, else by an ``Authenticator``."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Mapping
from typing import Protocol

import attrs

from sandbox_sdk.auth.principal import EVERYTHING, LOCAL_TENANT, Principal
from sandbox_sdk.errors import AuthenticationError

_UCRED = struct.Struct("3i")  # pid, uid, gid: unix(7)


class Authenticator(Protocol):
    """Proves who calls by what they send."""

    async def authenticate(self, authorization: str) -> Principal:
        """Return whose credentials these are.

        Args:
            authorization: The value of the header ``Authorization``.

        Raises:
            AuthenticationError: They are not good.
        """
        ...


@attrs.frozen(kw_only=True)
class Peer:
    """Another user of this machine who may use a Unix socket.

    Attributes:
        tenant: Whose sandboxes they see.
        scopes: What they may do.
    """

    tenant: str
    scopes: frozenset[str] = frozenset({EVERYTHING})


class Peers:
    """Says who is at the other end of a Unix socket.

    The server's own user and root are the tenant ``local``; anyone else is refused who is not
    mapped.

    Args:
        mapped: Uid -> who that is.
    """

    def __init__(self, mapped: Mapping[int, Peer] | None = None) -> None:
        own = Peer(tenant=LOCAL_TENANT)
        self._known = {**(mapped or {}), os.geteuid(): own, 0: own}

    def identify(self, peer: socket.socket) -> Principal:
        """Return who is at the other end.

        Raises:
            AuthenticationError: Nobody who may use this server.
        """
        given = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        _, uid, _ = _UCRED.unpack(given)
        known = self._known.get(uid)
        if known is None:
            raise AuthenticationError(
                f"uid {uid} may not use this socket: it is the server's own user's and root's; "
                "have the uid mapped, or use the server's TCP address with an API key"
            )
        return Principal(
            tenant=known.tenant, subject=f"uid {uid}", method="peer", scopes=known.scopes
        )
