"""What of a client's wish a server grants: it trusts no default, path or number of a client."""

from __future__ import annotations

import re

import attrs

from sandbox_sdk.config import Settings
from sandbox_sdk.errors import ConfigError, IsolationError, NotPermitted
from sandbox_sdk.policies import STRONG, policy
from sandbox_sdk.requirements import MOST_PACKAGES
from sandbox_sdk.resources import RESOURCE_FIELDS
from sandbox_sdk.server.settings import ServerSettings
from sandbox_sdk.spec import parse_spec
from sandbox_sdk.values import SandboxSpec

_MOST_OWNERS = 16
_KEY = re.compile(r"[0-9a-f]{64}")


def admit(
    asked: SandboxSpec, offered: ServerSettings, settings: Settings, *, shared: bool
) -> SandboxSpec:
    """Return the spec that a client gets, checked as if written by hand.

    Args:
        asked: What came.
        offered: What the server offers.
        settings: The server's own, for what the client left open.
        shared: Whether there is more than one tenant.

    Raises:
        ConfigError: A value is wrong; all faults at once.
        NotPermitted: The server does not offer it.
        IsolationError: This version does not keep the level's promises, or tenants share the
            server and the level is too weak.
    """
    if asked.mounts:
        line = "mounts: a path of the server is refused: upload what the sandbox needs"
        raise ConfigError(line, faults=(line,))
    # Before each is looked at: a fault of every one would make more text than there is room for.
    for name, listed in (("packages", asked.packages), ("preload", asked.preload)):
        if len(listed) > MOST_PACKAGES:
            line = f"{name}: are {len(listed)}, more than {MOST_PACKAGES}"
            raise ConfigError(line, faults=(line,))
    resources = {key: getattr(asked.resources, field) for key, field in RESOURCE_FIELDS.items()}
    spec = parse_spec(
        asked.name,
        settings=settings,
        resources=resources,
        timeout=asked.timeout,
        idle_timeout=asked.idle_timeout or offered.idle_timeout,
        security_level=asked.security_level,
        waive=asked.waive,
        env=asked.env,
        files=asked.files,
        metadata=asked.metadata,
        template=asked.template,
        packages=asked.packages,
        preload=asked.preload,
        network=asked.network,
        runtime=asked.runtime,
        seed=asked.seed,
    )
    readmit(spec, offered, shared=shared)
    if spec.template is None and not spec.packages and "host-template" not in offered.allow:
        spec = attrs.evolve(spec, template="python")
    owners = _owners(asked)
    if owners and (spec.env or spec.files or spec.metadata):
        line = "env, files and metadata: are not for the server where a channel is sealed: leave "
        line += "them out, and hand them over inside"
        raise ConfigError(line, faults=(line,))
    return attrs.evolve(spec, internal=asked.internal, owners=owners)


def readmit(spec: SandboxSpec, offered: ServerSettings, *, shared: bool) -> None:
    """Go on if a sandbox of this spec may start now, whatever was offered when it was made.

    Args:
        spec: How it was asked for.
        offered: What the server offers.
        shared: Whether there is more than one tenant.

    Raises:
        NotPermitted: The server does not offer it.
        IsolationError: This version does not keep the level's promises, or tenants share the
            server and the level is too weak.
    """
    for word, is_asked, what in (
        ("unsafe", spec.security_level == "unsafe", 'security_level="unsafe"'),
        ("low", spec.security_level == "low", 'security_level="low"'),
        ("waivers", bool(spec.waive), "waive="),
        ("host-template", spec.template == "host", 'template="host"'),
    ):
        if is_asked and word not in offered.allow:
            raise NotPermitted(
                f"{what} is refused by this server: leave it out, or have the server started with "
                f"--allow {word}"
            )
    policy(spec.security_level)
    if shared and spec.security_level not in STRONG:
        raise IsolationError(
            f'security level "{spec.security_level}" is refused: several tenants share this '
            'server; ask for security_level="high"',
            level=spec.security_level,
        )


def _owners(asked: SandboxSpec) -> tuple[str, ...]:
    """Return the keys whose holders may open the channel.

    Raises:
        ConfigError: One of them is none, or none is there where the level seals the channel.
    """
    are_keys = all(_KEY.fullmatch(each) for each in asked.owners)
    if not are_keys or len(asked.owners) > _MOST_OWNERS:
        what = f"must be at most {_MOST_OWNERS} public Ed25519 keys, each of 64 hexadecimal digits"
    elif not asked.owners and asked.security_level in STRONG:
        what = f'security level "{asked.security_level}" seals every channel: name an owner\'s key'
    else:
        return asked.owners
    line = f"owners: {what}"
    raise ConfigError(line, faults=(line,))
