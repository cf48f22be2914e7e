"""A caller whose credentials were found good."""

from __future__ import annotations

import attrs

LOCAL_TENANT = "local"
EVERYTHING = "*"


@attrs.frozen(kw_only=True)
class Principal:
    """Who calls a server, and what they may do there.

    Attributes:
        tenant: Whose sandboxes these are; no other tenant's can be seen.
        subject: Who it is within the tenant.
        method: How that was proven: ``token``, ``api_key``, ``client``, ``session`` or ``peer``
            (the operating system's word for who is at the other end of a Unix socket).
        scopes: What the caller may do; ``*`` is everything.
        expires_at: When that ends, in seconds since the epoch; ``None`` is never.
        credential: Public id of the key, client or session, for lists, logs and revocation.
    """

    tenant: str
    subject: str
    method: str
    scopes: frozenset[str] = frozenset()
    expires_at: float | None = None
    credential: str | None = None

    def may(self, scope: str) -> bool:
        """Return whether the caller may do this."""
        return EVERYTHING in self.scopes or scope in self.scopes
