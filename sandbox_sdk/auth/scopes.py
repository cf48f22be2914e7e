"""What callers of a server may do: a closed table of scopes, and of roles, which are sets of them.

A key, client or session holds *grants*: names of roles and scopes. A role's meaning is looked up
when a request comes, so that one that gains a scope gains it for the keys there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sandbox_sdk.auth.principal import EVERYTHING, LOCAL_TENANT, Principal
from sandbox_sdk.errors import ConfigError
from sandbox_sdk.parse import describe, suggestion

SCOPES: Mapping[str, str] = {
    "sandboxes:read": "see sandboxes, their files, limits and usage",
    "sandboxes:write": "make, start, use, end and delete sandboxes",
    "runs:read": "see experiments' runs and their results",
    "runs:write": "start, continue and delete runs",
    "templates:read": "see templates",
    "templates:write": "build and remove templates",
    "sessions:read": "see the sessions of everybody in the tenant; one's own need no scope",
    "sessions:write": "revoke the sessions of everybody in the tenant",
    "keys:read": "see the tenant's API keys and clients, without their secrets",
    "keys:write": "make and revoke the tenant's API keys and clients",
}
"""Scope -> what its holder may do; all there are."""

ROLES: Mapping[str, frozenset[str]] = {
    "admin": frozenset({EVERYTHING}),
    "user": frozenset(
        {
            "sandboxes:read",
            "sandboxes:write",
            "runs:read",
            "runs:write",
            "templates:read",
            "templates:write",
        }
    ),
    "reader": frozenset({"sandboxes:read", "runs:read", "templates:read"}),
}
"""Role -> its scopes; ``*`` is everything within the tenant."""


def scopes_of(grants: Iterable[str]) -> frozenset[str]:
    """Return the scopes that grants amount to; one that this version does not know gives none."""
    found: set[str] = set()
    for grant in grants:
        if grant in SCOPES or grant == EVERYTHING:
            found.add(grant)
        else:
            found |= ROLES.get(grant, frozenset())
    return frozenset({EVERYTHING}) if EVERYTHING in found else frozenset(found)


def check_grants(grants: Iterable[str]) -> tuple[str, ...]:
    """Return grants in order, each once.

    Raises:
        ConfigError: There is none, or one is no role or scope; all faults at once.
    """
    wanted = sorted(set(grants))
    known = (*ROLES, *SCOPES)
    faults = [
        f"grants: no role or scope {describe(grant)}{suggestion(grant, known)}"
        for grant in wanted
        if grant not in known
    ]
    if not wanted:
        faults = [f"grants: at least one is needed, of {', '.join(known)}"]
    if faults:
        raise ConfigError("; ".join(faults), faults=tuple(faults))
    return tuple(wanted)


def narrowed(held: frozenset[str], wanted: Iterable[str]) -> frozenset[str] | None:
    """Return the scopes that are asked for, or ``None`` if one of them is not held."""
    asked = frozenset(wanted)
    if not asked <= {*SCOPES, EVERYTHING}:
        return None
    return asked if EVERYTHING in held or asked <= held else None


def is_operator(principal: Principal) -> bool:
    """Return whether a caller may administer the server itself, all tenants included."""
    return principal.tenant == LOCAL_TENANT and EVERYTHING in principal.scopes
