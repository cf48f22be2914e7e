"""The sessions of a tenant's callers: listed, and ended. They are begun at the token endpoint."""

from __future__ import annotations

from sandbox_sdk.backends.protocol import SessionPage
from sandbox_sdk.errors import CredentialNotFound
from sandbox_sdk.server.calls import Call
from sandbox_sdk.server.pages import MOST_LISTED, cut


async def list_(call: Call) -> SessionPage:
    """Return a page of the caller's sessions, or of the tenant's for who may see them."""
    most = int(call.number("limit", 100, most=MOST_LISTED)) or 1
    known = call.authenticator
    found = () if known is None else await known.sessions(call.principal)
    page, following = cut(found, call.query("after"), most)
    return SessionPage(sessions=tuple(page), next=following)


async def revoke(call: Call) -> None:
    """End a session.

    Raises:
        CredentialNotFound: There is none that the caller may end.
    """
    if call.authenticator is None:
        raise CredentialNotFound("this server has no sessions: its operator made no keys")
    await call.authenticator.revoke_session(call.principal, call.id)
