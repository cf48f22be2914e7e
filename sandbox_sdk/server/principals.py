"""Who calls: by the operating system's word at a Unix socket, else by an ``Authenticator``."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable, Mapping
from typing import Protocol

import attrs

from sandbox_sdk.auth.grants import TokenAnswer
from sandbox_sdk.auth.principal import EVERYTHING, LOCAL_TENANT, Principal
from sandbox_sdk.auth.records import SessionInfo
from sandbox_sdk.errors import AuthenticationError

_UCRED = struct.Struct("3i")  # pid, uid, gid: unix(7)


class Authenticator(Protocol):
    """Proves who calls by what they send; ``auth.authority.Authority`` is one."""

    async def authenticate(self, authorization: str, *, peer: str = "") -> Principal:
        """Return whose credentials these are.

        Args:
            authorization: The value of the header ``Authorization``.
            peer: Where they came from, for slowing down who guesses.

        Raises:
            AuthenticationError: They are not good.
        """
        ...

    async def token(
        self,
        form: Iterable[tuple[str, str]],
        *,
        authorization: str | None = None,
        peer: str = "",
    ) -> TokenAnswer:
        """Return the answer of RFC 6749 to a form that asks for a token."""
        ...

    async def sessions(self, principal: Principal) -> tuple[SessionInfo, ...]:
        """Return the sessions that a caller may see, oldest first."""
        ...

    async def revoke_session(self, principal: Principal, id: str) -> None:
        """Revoke a session.

        Raises:
            CredentialNotFound: There is none that the caller may revoke.
        """

    async def wait_revoked(self, principal: Principal) -> None:
        """Return once what the caller proved themselves with is revoked."""

    async def has_tenants(self) -> bool:
        """Return whether there is a tenant besides the operator's."""
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
