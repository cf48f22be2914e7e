"""``admin``: a server's tenants, API keys, clients and sessions, for whoever owns its state folder.

It works on the state folder itself, whether or not a server runs: what is revoked, a running one
refuses at its next look.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sandbox_sdk.cli.administering import administering, change, make, revoke, show, when
from sandbox_sdk.cli.running import Session, global_options, run
from sandbox_sdk.wire import to_json

if TYPE_CHECKING:
    from sandbox_sdk.auth.administration import Administration
    from sandbox_sdk.auth.records import NewClient, NewKey

# Any: click decorates functions of every signature.
Command = TypeVar("Command", bound=Callable[..., Any])

_DAY = 86400.0


@click.group()
@global_options
def admin() -> None:
    """List, make and revoke what a server's callers prove themselves with."""


@admin.group()
@global_options
def tenants() -> None:
    """Whose sandboxes they are: nothing of one's is in reach of another's."""


@tenants.command("list")
@global_options
def list_tenants() -> None:
    """List the tenants, oldest first."""
    run(_list_tenants)


async def _list_tenants(session: Session) -> int:
    async with administering(session) as its:
        found = await its.tenants()
    session.output.document({"tenants": [to_json(each) for each in found]})
    rows = [(each.id, when(each.created_at), when(each.disabled_at)) for each in found]
    session.output.table(("tenant", "created", "disabled"), rows)
    return 0


@tenants.command("create")
@global_options
@click.argument("name")
def create_tenant(name: str) -> None:
    """Make the tenant NAME; from then on every sandbox of the server is at least at `high`."""
    run(lambda session: change(session, "tenants.create", name, lambda its: its.create_tenant))


@tenants.command("disable")
@global_options
@click.argument("name")
def disable_tenant(name: str) -> None:
    """Shut a tenant for good, and revoke all that it has."""
    run(lambda session: change(session, "tenants.disable", name, lambda its: its.disable_tenant))


def _of_tenant(command: Command) -> Command:
    return click.option("--tenant", help="Only this tenant's; by default all.")(command)


def _holder(command: Command) -> Command:
    """Let a command take who gets a new key or client."""
    tenant = click.option("--tenant", default="local", show_default=True, help="Whose it is.")
    grants = click.option(
        "--grant",
        "grants",
        multiple=True,
        default=("user",),
        show_default=True,
        help="A role or scope; may be given more than once.",
    )
    days = click.option(
        "--days",
        type=click.FloatRange(0, min_open=True),
        help="How long it is good; else for ever.",
    )
    subject = click.argument("subject")
    return tenant(grants(days(subject(command))))


@admin.group()
@global_options
def keys() -> None:
    """API keys."""


@keys.command("create")
@_holder
@global_options
def create_key(tenant: str, grants: tuple[str, ...], days: float | None, subject: str) -> None:
    """Make an API key for SUBJECT, whoever will use it. It is shown this once."""

    async def made(its: Administration) -> NewKey:
        return await its.create_key(tenant, subject, grants=grants, expires_at=_end(days))

    run(lambda session: make(session, "keys.create", "API key", made))


@keys.command("list")
@_of_tenant
@global_options
def list_keys(tenant: str | None) -> None:
    """List API keys, oldest first; the keys themselves are kept nowhere."""
    run(lambda session: show(session, "keys", lambda its: its.keys(tenant)))


@keys.command("revoke")
@global_options
@click.argument("id")
def revoke_key(id: str) -> None:
    """Revoke an API key, with the sessions that were begun with it."""
    run(lambda session: revoke(session, "keys", "key_", id))


@admin.group()
@global_options
def clients() -> None:
    """Clients of the client credentials grant: an id and a secret each."""


@clients.command("create")
@_holder
@global_options
def create_client(tenant: str, grants: tuple[str, ...], days: float | None, subject: str) -> None:
    """Make a client for SUBJECT, whoever will use it. Its secret is shown this once."""

    async def made(its: Administration) -> NewClient:
        return await its.create_client(tenant, subject, grants=grants, expires_at=_end(days))

    run(lambda session: make(session, "clients.create", "client", made))


@clients.command("add-secret")
@global_options
@click.argument("id")
def add_secret(id: str) -> None:
    """Give a client another secret, shown this once; of the others only the last stays good."""
    run(
        lambda session: make(
            session, "clients.add_secret", "client", lambda its: its.add_client_secret(id)
        )
    )


@clients.command("list")
@_of_tenant
@global_options
def list_clients(tenant: str | None) -> None:
    """List clients, oldest first."""
    run(lambda session: show(session, "clients", lambda its: its.clients(tenant)))


@clients.command("revoke")
@global_options
@click.argument("id")
def revoke_client(id: str) -> None:
    """Revoke a client, with the tokens that it was given."""
    run(lambda session: revoke(session, "clients", "cli_", id))


@admin.group()
@global_options
def sessions() -> None:
    """Sessions, which are begun with an API key."""


@sessions.command("list")
@_of_tenant
@global_options
def list_sessions(tenant: str | None) -> None:
    """List sessions, oldest first; ended ones stay for a day."""
    run(lambda session: show(session, "sessions", lambda its: its.sessions(tenant)))


@sessions.command("revoke")
@global_options
@click.argument("id")
def revoke_session(id: str) -> None:
    """Revoke a session, with its tokens."""
    run(lambda session: revoke(session, "sessions", "ses_", id))


def _end(days: float | None) -> float | None:
    return None if days is None else time.time() + days * _DAY
