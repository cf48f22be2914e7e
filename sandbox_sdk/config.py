"""Settings: defaults < ``config.yaml`` < ``SANDBOX_*`` variables < arguments.

The file is the one that ``SANDBOX_CONFIG`` names, else ``./config.yaml``, else ``config.yaml`` in
the user's config folder for ``sandbox-sdk``. A ``./config.yaml`` without any key of ours belongs
to another program and is passed over. Unknown ``SANDBOX_*`` variables are other programs' too,
unless one is close to ours: a misspelt ``SANDBOX_SECURITY_LEVEL`` must not weaken anything.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from sandbox_sdk.config_file import read_configuration, read_file
from sandbox_sdk.config_keys import (
    CREDENTIALS,
    DOCUMENTED_KEY,
    LARGEST_UID,
    TOP,
    Sources,
    Written,
)
from sandbox_sdk.parse import Faults
from sandbox_sdk.rules import Rule
from sandbox_sdk.values import Reserve, Resources, RuntimeName, SecurityLevel

if TYPE_CHECKING:
    from sandbox_sdk.crypto_utils import KeySource

_PLACEHOLDER = re.compile(r"your[-_ ].*|<.*>|change[-_ ]?me|x{3,}", re.IGNORECASE)

FIRST_UID = 1_879_048_192
"""The first user id that root gives to sandboxes, far from those of people and containers."""

UID_COUNT = 65_536
"""How many user ids there are for sandboxes, unless settings say otherwise."""


@attrs.frozen(kw_only=True)
class UidRange:
    """The user ids that root gives to sandboxes; a plain user needs none.

    Attributes:
        first: The first one.
        count: How many follow, the first included.
    """

    first: int = FIRST_UID
    count: int = UID_COUNT

    @property
    def last(self) -> int:
        """The last one."""
        return self.first + self.count - 1


@attrs.frozen(kw_only=True)
class Settings:
    """Everything that can be set, made by ``load``.

    Attributes:
        api_key: For a server; not needed on this machine.
        client_id: For a server; not needed on this machine.
        client_secret: For a server; not needed on this machine.
        token: An access token for a server; not needed on this machine.
        session: The file of a session with a server; not needed on this machine.
        endpoint: The address of a server; ``None`` is this machine, without one.
        tls_ca_file: Certificates to trust with the endpoint, instead of the system's.
        security_level: What a sandbox gets that asks for no level.
        resources: What a sandbox gets that asks for none.
        timeout: Longest life of a set-up sandbox in seconds; ``None`` is no bound.
        idle_timeout: Longest time without a call in seconds; ``None`` is no bound.
        state_dir: The state folder; ``None`` is the user's data folder.
        uid_range: The user ids that root gives to sandboxes.
        runtime: What builds a sandbox that asks for none; ``None`` is the first that works.
        local_model: The model of the demo, installed in the state folder or a path.
        encryption_key: The master key or passphrase under which keys are kept.
        encryption_key_file: A file that holds it; goes before one from a variable or file.
        key_is_argument: Whether ``encryption_key`` is an argument, which goes before any file.
        seal_channels: Whether the channels of a server's sandboxes are sealed from end to end.
        worker_keys: Public keys of the workers to trust, as lines of SSH public key files; without
            one, the first that a server names is stored and trusted, but at ``high`` none is.
        enable_audit_logs: Whether what is done is recorded; ``None`` is at ``high`` and above.
        audit_keep_days: Days after which what was recorded is removed; ``None`` is never.
        auto_scaling: Whether demand and memory decide how many sandboxes stand ready and run at
            once, within ``pool_size`` and ``max_concurrency``; else those are fixed numbers.
        pool_size: Sandboxes kept ready at most, once some were asked for; 0 keeps none.
        max_concurrency: Sandboxes of trials that run at once at most; ``None`` is a number by the
            processors.
        reserve: Memory that each of them reserves: by the peaks seen of its like, or its limit.
        monitoring_interval: Seconds between two points of the orchestrator's history.
        rules: The operator's rules that arguments hold.
        rules_file: The configuration file, where it holds rules: they are read again as they
            change.
    """

    api_key: str | None = attrs.field(default=None, repr=False)
    client_id: str | None = attrs.field(default=None, repr=False)
    client_secret: str | None = attrs.field(default=None, repr=False)
    token: str | None = attrs.field(default=None, repr=False)
    session: Path | None = None
    endpoint: str | None = None
    tls_ca_file: Path | None = None
    security_level: SecurityLevel = "medium"
    resources: Resources = attrs.field(factory=Resources)
    timeout: float | None = 3600.0
    idle_timeout: float | None = None
    state_dir: Path | None = None
    uid_range: UidRange = UidRange()
    runtime: RuntimeName | None = None
    local_model: str = "smollm2"
    encryption_key: str | None = attrs.field(default=None, repr=False)
    encryption_key_file: Path | None = None
    key_is_argument: bool = False
    seal_channels: bool = True
    worker_keys: tuple[str, ...] = ()
    enable_audit_logs: bool | None = None
    audit_keep_days: int | None = None
    auto_scaling: bool = True
    pool_size: int = 16
    max_concurrency: int | None = None
    reserve: Reserve = "peak"
    monitoring_interval: float = 60.0
    rules: tuple[Rule, ...] = ()
    rules_file: Path | None = None

    @property
    def secrets(self) -> frozenset[str]:
        """The values that must enter no sandbox, record, error or export."""
        kept = (self.api_key, self.client_secret, self.token, self.encryption_key)
        return frozenset(secret for secret in kept if secret)

    @property
    def key_source(self) -> KeySource:
        """Where the master key is: an argument, else the key file, else what else was set."""
        # Imported on use: most processes need no key.
        from sandbox_sdk.crypto_utils import KeySource

        if self.encryption_key_file is None or self.key_is_argument:
            return KeySource(text=self.encryption_key)
        return KeySource(file=self.encryption_key_file)

    @classmethod
    def load(
        cls,
        auth_config: Mapping[str, object] | None = None,
        *,
        config: str | os.PathLike[str] | Mapping[str, object] | None = None,
        endpoint: str | None = None,
        state_dir: str | os.PathLike[str] | None = None,
        orchestrator: Mapping[str, object] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Settings:
        """Return the settings in force; reads at most one file.

        Args:
            auth_config: ``api_key``, ``client_id``, ``client_secret``, ``token``, ``session``.
            config: A file to read instead of those found, or a mapping of settings, shaped as the
                file, which goes before file and environment.
            endpoint: The address of a server.
            state_dir: The state folder.
            orchestrator: The settings of the section ``orchestrator``.
            environ: The environment; ``None`` is this process's.

        Raises:
            ConfigError: A name is unknown or a value wrong; all faults at once, each with its
                path and where it was written.
        """
        faults = Faults()
        sources = Sources(faults)
        environ = os.environ if environ is None else environ
        file = ""
        with faults.collect():
            if isinstance(config, str | os.PathLike):
                held, file = read_file(Path(config).expanduser()), os.fspath(config)
            else:
                held, file = read_configuration(environ, TOP)
            sources.add(held, file)
        sources.add_environment(environ)
        if config is not None and not isinstance(config, str | os.PathLike):
            sources.add(config, "the argument config")
        sources.add_credentials(auth_config)
        sources.add({"orchestrator": orchestrator}, "the argument orchestrator")
        sources.add({"endpoint": endpoint}, "the argument endpoint")
        sources.add({"state_dir": state_dir}, "the argument state_dir")
        fields = sources.parse()
        uid_range = attrs.evolve(UidRange(), **fields["uid_range"])
        if uid_range.last > LARGEST_UID:
            faults.add("uid_range", f"ends at {uid_range.last}, above the largest, {LARGEST_UID}")
        if "endpoint" in sources.written:
            _refuse_placeholders(sources.written, faults)
        faults.check()
        settings = cls(
            resources=attrs.evolve(Resources(), **fields["resources"]),
            uid_range=uid_range,
            key_is_argument=_is_argument(sources.written.get("security.encryption_key")),
            rules_file=Path(file).expanduser().absolute() if file in sources.rules else None,
            rules=tuple(
                rule for source, rules in sources.rules.items() for rule in rules if source != file
            ),
            **fields["settings"],
        )
        _warn(settings, sources.written)
        if settings.encryption_key == DOCUMENTED_KEY:
            settings = attrs.evolve(settings, encryption_key=None, key_is_argument=False)
        return settings


def _refuse_placeholders(written: Mapping[str, Written], faults: Faults) -> None:
    for key in CREDENTIALS:
        found = written.get(key)
        if found and isinstance(found.value, str) and _PLACEHOLDER.fullmatch(found.value.strip()):
            faults.add(key, f"is still the placeholder of the documentation (from {found.source})")


def _is_argument(key: Written | None) -> bool:
    return key is not None and key.source.startswith("the argument ")


def _key_warning(key: Written) -> str | None:
    """Return what is wrong with a key and yet no error."""
    if key.value == DOCUMENTED_KEY:
        return (
            f"security.encryption_key is still the placeholder of the documentation (from "
            f"{key.source}) and is not used; make one with: sandbox-sdk keys create"
        )
    file = Path(key.source)
    if not _is_argument(key) and file.is_file() and file.stat().st_mode & 0o077:
        return (
            f"{file} holds security.encryption_key, and others may read it; run: chmod 600 {file}"
        )
    return None


def _warn(settings: Settings, written: Mapping[str, Written]) -> None:
    """Say what was set but does nothing, so that nobody relies on it."""
    ignored = [key for key in CREDENTIALS if key in written and settings.endpoint is None]
    if ignored:
        warnings.warn(
            f"{', '.join(ignored)}: not needed and ignored, since sandboxes run on this machine "
            "and no endpoint is set",
            stacklevel=3,
        )
    key = written.get("security.encryption_key")
    if key is not None and (what := _key_warning(key)):
        warnings.warn(what, stacklevel=3)
