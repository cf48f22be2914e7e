"""Whose sandboxes these are: on this machine, the operating system's user's."""

from __future__ import annotations

import os
import pwd

import attrs

from sandbox_sdk.config import Settings


@attrs.frozen(kw_only=True)
class AuthStatus:
    """The answer of ``validate_auth()``.

    Attributes:
        authenticated: Whether calls will be accepted.
        method: What decides; ``local`` is the operating system.
        subject: Who the caller is.
        scopes: What the caller may do; ``*`` is everything.
        expires_at: When that ends, in seconds since the epoch; ``None`` is never.
        detail: One sentence for people.
    """

    authenticated: bool
    method: str
    subject: str
    scopes: tuple[str, ...] = ()
    expires_at: float | None = None
    detail: str = ""


def local_status(settings: Settings) -> AuthStatus:
    """Return who the caller is on this machine, where no credentials are needed."""
    uid = os.geteuid()
    try:
        subject = pwd.getpwuid(uid).pw_name
    except KeyError:  # a container's user often has no entry
        subject = f"uid {uid}"
    given = any((settings.api_key, settings.client_id, settings.client_secret))
    ignored = "; those given were ignored and proved nothing" if given else ""
    return AuthStatus(
        authenticated=True,
        method="local",
        subject=subject,
        scopes=("*",),
        detail=f"sandboxes run on this machine as its user, without credentials{ignored}",
    )
