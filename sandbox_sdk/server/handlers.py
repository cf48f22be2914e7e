"""The control plane: what each route does for a tenant."""

from __future__ import annotations

from functools import partial
from importlib.metadata import version

import anyio
import attrs
from anyio.to_thread import run_sync

from sandbox_sdk.backends.base import LimitHits, Standing
from sandbox_sdk.backends.protocol import (
    Asked,
    Caller,
    HowEnded,
    Page,
    Pinned,
    Stopping,
    Usages,
)
from sandbox_sdk.errors import ConfigError, ServerUnavailable
from sandbox_sdk.server.calls import IN_A_THREAD, Call, parse
from sandbox_sdk.server.once import info_once, once_of, standing_once
from sandbox_sdk.server.pages import MOST_LISTED, cut
from sandbox_sdk.server.rules import admit, readmit
from sandbox_sdk.values import KIB, MIB, EndKind, SandboxInfo, SandboxSpec, SandboxState

LARGEST_CREATE = 80 * MIB
"""Longest body of a creation: 50 MiB of files as base64, and the rest."""

LARGEST_PIN = 8 * MIB
"""Longest body of a spec without files."""

LONGEST_WAIT = 60.0
"""Longest time in seconds that a question for a sandbox's end waits for it."""

_LONGEST_DETAIL = 500
_LONGEST_STOP = 64 * KIB
# How a client may say that its own sandbox ended; the rest is for the host to find.
_SAYABLE = frozenset({EndKind.OK, EndKind.CANCELLED, EndKind.SANDBOX_DIED})


async def whoami(call: Call) -> Caller:
    """Return who calls, and what they may do."""
    principal = call.principal
    return Caller(
        tenant=principal.tenant,
        subject=principal.subject,
        method=principal.method,
        scopes=tuple(sorted(principal.scopes)),
        expires_at=principal.expires_at,
        server=version("sandbox-sdk"),
        worker=call.tenants.worker,
    )


async def pin(call: Call) -> Pinned:
    """Return a spec with its template's name replaced by what it means now."""
    async with call.tenant.heavy:
        body = await call.read(most=LARGEST_PIN)
        bare = attrs.evolve(await parse(SandboxSpec, body), files={})
        return Pinned(spec=await call.tenant.backend.pin(await _admitted(call, bare, len(body))))


async def create(call: Call) -> SandboxInfo:
    """Record a sandbox, once for each idempotency key."""
    _refuse_if_draining(call)
    async with call.tenant.heavy:
        body = await call.read(most=LARGEST_CREATE)
        once = once_of(call, body)
        with call.tenant.alone(once):
            asked = await parse(SandboxSpec, body)
            spec = await _admitted(call, asked, len(body))
            return _shown(await call.tenant.create(spec, once))


async def find(call: Call) -> SandboxInfo:
    """Return a record."""
    return _shown(await call.tenant.backend.get(call.id))


async def list_(call: Call) -> Page:
    """Return a page of records."""
    most = int(call.number("limit", 100, most=MOST_LISTED)) or 1
    records = await call.tenant.backend.list(include_internal=call.query("internal") == "true")
    page, following = cut(records, call.query("after"), most)
    return Page(sandboxes=tuple(map(_shown, page)), next=following)


async def start(call: Call) -> Standing:
    """Set a sandbox up, once for each idempotency key."""
    _refuse_if_draining(call)
    spec = (await call.tenant.backend.get(call.id)).spec
    if not call.tenant.runs(call.id):
        readmit(spec, call.offered, shared=await call.shared())
    standing = await standing_once(call, lambda: call.tenant.start(call.id))
    return attrs.evolve(standing, info=_shown(standing.info))


async def stop(call: Call) -> SandboxInfo:
    """End a sandbox, once for each idempotency key."""
    body = await call.read(most=_LONGEST_STOP)
    why = (await parse(Stopping, body)).why
    if why is not None:
        if why.kind not in _SAYABLE:
            raise ConfigError(f"why.kind: {why.kind} is for the server to find, not to be told")
        why = attrs.evolve(why, detail=why.detail[:_LONGEST_DETAIL])
    await call.tenant.backend.get(call.id)
    return _shown(await info_once(call, body, lambda: call.tenant.backend.stop(call.id, why)))


async def delete(call: Call) -> None:
    """Delete a sandbox with all that is kept of it."""
    await call.tenant.delete(call.id)


async def usage(call: Call) -> Usages:
    """Return what sandboxes use now."""
    asked = await call.value(Asked)
    if len(asked.ids) > MOST_LISTED:
        raise ConfigError(f"ids: are {len(asked.ids)}, more than {MOST_LISTED}")
    return Usages(usage=await call.tenant.backend.usage(asked.ids))


async def limit_hits(call: Call) -> LimitHits:
    """Return what the kernel counted."""
    await call.tenant.backend.get(call.id)
    return await call.tenant.backend.limit_hits(call.id)


async def ended(call: Call) -> HowEnded:
    """Wait for a sandbox's end, for a while."""
    seconds = call.number("wait", 0, most=LONGEST_WAIT)
    info = await call.tenant.backend.get(call.id)
    if info.state is not SandboxState.RUNNING or not call.tenant.runs(call.id):
        return HowEnded(state=info.state, ended=info.ended)
    with anyio.move_on_after(seconds):
        how = await call.tenant.backend.ended(call.id)
        return HowEnded(state=SandboxState.STOPPED, ended=how)
    return HowEnded(state=SandboxState.RUNNING)


async def _admitted(call: Call, asked: SandboxSpec, size: int) -> SandboxSpec:
    """Return the spec that a client gets; a large one is checked in a thread."""
    shared = await call.shared()
    check = partial(admit, asked, call.offered, call.tenants.settings, shared=shared)
    return await run_sync(check) if size > IN_A_THREAD else check()


def _refuse_if_draining(call: Call) -> None:
    if call.draining:
        raise ServerUnavailable(
            "the server is about to end and starts nothing new: try again when it is back",
            retry_after=5.0,
        )


def _shown(info: SandboxInfo) -> SandboxInfo:
    """A record as clients see it: processes of the server are none of theirs."""
    return attrs.evolve(info, owner_pid=None)
