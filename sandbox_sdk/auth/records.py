"""What a server keeps of tenants, API keys, clients and sessions; no secret is among it."""

from __future__ import annotations

from typing import Literal

import attrs


@attrs.frozen(kw_only=True)
class TenantInfo:
    """A tenant: whose sandboxes they are.

    Attributes:
        id: Its name.
        created_at: When it was made, in seconds since the epoch.
        disabled_at: When it was shut; all its credentials were revoked then. ``None`` is open.
    """

    id: str
    created_at: float
    disabled_at: float | None = None


@attrs.frozen(kw_only=True)
class KeyInfo:
    """An API key.

    Attributes:
        id: Its public id.
        tenant: Whose it is.
        subject: Who uses it.
        grants: Its roles and scopes.
        created_at: When it was made, in seconds since the epoch.
        expires_at: When it ends; ``None`` is never.
        revoked_at: When it was revoked.
        used_at: When it was last used, to a minute.
    """

    id: str
    tenant: str
    subject: str
    grants: tuple[str, ...]
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    used_at: float | None = None


@attrs.frozen(kw_only=True)
class ClientInfo:
    """A client of the client credentials grant.

    Attributes:
        id: Its public id, the ``client_id``.
        tenant: Whose it is.
        subject: Who uses it.
        grants: Its roles and scopes.
        created_at: When it was made, in seconds since the epoch.
        expires_at: When it ends; ``None`` is never.
        revoked_at: When it was revoked.
        used_at: When it was last given a token.
    """

    id: str
    tenant: str
    subject: str
    grants: tuple[str, ...]
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    used_at: float | None = None


@attrs.frozen(kw_only=True)
class SessionInfo:
    """A session: what was begun with an API key and goes on by refresh tokens.

    Attributes:
        id: Its public id.
        tenant: Whose it is.
        subject: Who uses it.
        grants: Its scopes.
        key: The API key that began it; with it the session is revoked.
        created_at: When it began, in seconds since the epoch.
        expires_at: When it ends at the latest.
        revoked_at: When it was revoked.
        used_at: When it was last refreshed.
    """

    id: str
    tenant: str
    subject: str
    grants: tuple[str, ...]
    key: str
    created_at: float
    expires_at: float
    revoked_at: float | None = None
    used_at: float | None = None


Credential = KeyInfo | ClientInfo | SessionInfo
"""What can be revoked."""


def ended(info: Credential, now: float) -> Literal["revoked", "expired"] | None:
    """Return why a credential is no longer good, or ``None`` while it is."""
    if info.revoked_at is not None:
        return "revoked"
    if info.expires_at is not None and info.expires_at <= now:
        return "expired"
    return None


@attrs.frozen(kw_only=True)
class NewKey:
    """An API key that was just made.

    Attributes:
        info: What is kept of it.
        secret: The key itself, ``sbx_...``, which is shown this once.
    """

    info: KeyInfo
    secret: str = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class NewClient:
    """A client that was just made, or given another secret.

    Attributes:
        info: What is kept of it.
        secret: The secret, ``sbxs_...``, which is shown this once.
    """

    info: ClientInfo
    secret: str = attrs.field(repr=False)
