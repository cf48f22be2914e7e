"""The table of all settings, and the collection of what each source says about them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import attrs

from sandbox_sdk.errors import ConfigError
from sandbox_sdk.parse import (
    Faults,
    closest,
    describe,
    fault,
    parse_count,
    parse_endpoint,
    parse_flag,
    parse_level,
    parse_mapping,
    parse_number,
    parse_reserve,
    parse_runtime,
    parse_seconds,
    parse_text,
    suggestion,
)
from sandbox_sdk.resources import RESOURCE_FIELDS, parse_resource
from sandbox_sdk.rule_texts import parse_rules
from sandbox_sdk.rules import Rule

LARGEST_UID = 2**32 - 2
"""The largest user id; the next number means "no user" to the kernel."""


@attrs.frozen
class Key:
    """One setting.

    Attributes:
        group: What it is a field of: ``settings``, ``resources`` or ``uid_range``.
        field: That field.
        parse: Reads its value; gets the value and its path.
    """

    group: str
    field: str
    # Any: each parser returns its own field's type.
    parse: Callable[[object, str], Any]


@attrs.frozen
class Written:
    """What one source says about one setting.

    Attributes:
        value: The value as it was written; not shown, as it may be a secret.
        source: A file's name, a variable's name, or an argument.
    """

    value: object = attrs.field(repr=False)
    source: str


def _parse_path(value: object, path: str) -> Path:
    text = str(value) if isinstance(value, Path) else value
    return Path(parse_text(text, path)).expanduser().absolute()


def _parse_uid(value: object, path: str) -> int:
    uid = parse_count(value, path)
    if uid > LARGEST_UID:
        raise fault(path, f"must be at most {LARGEST_UID}, not {describe(value)}")
    return uid


def _parse_pool_size(value: object, path: str) -> int:
    return 0 if value == 0 or value == "0" else parse_count(value, path)


def _parse_encryption_key(value: object, path: str) -> str:
    # Imported on use: most users set none.
    from sandbox_sdk.crypto_utils import check_encryption_key

    text = parse_text(value, path)
    if text != DOCUMENTED_KEY:
        try:
            check_encryption_key(text)
        except ConfigError as error:
            raise fault(path, error.message.removeprefix("encryption_key: ")) from None
    return text


def _parse_worker_keys(value: object, path: str) -> tuple[str, ...]:
    # Imported on use, as above.
    from sandbox_sdk.crypto_utils.identities import parse_worker_keys

    several = [value] if isinstance(value, str) else value
    if not isinstance(several, list) or not several:
        raise fault(path, f"must be one key or a list of them, not {describe(value)}")
    # Whatever the caller's list holds is checked here.
    found = cast("list[object]", several)
    text = "\n".join(each if isinstance(each, str) else "" for each in found)
    try:
        keys = parse_worker_keys(text)
    except ConfigError:
        keys = ()
    if len(keys) < len(found):
        raise fault(
            path,
            'must be lines of SSH public key files, such as "ssh-ed25519 AAAA...", as '
            "`sandbox-sdk server fingerprint` prints them on the server",
        )
    return tuple(key.to_text() for key in keys)


DOCUMENTED_KEY = "your-encryption-key"
"""The placeholder of the documentation, which is no key."""

KEYS: Mapping[str, Key] = {
    "api_key": Key("settings", "api_key", parse_text),
    "client_id": Key("settings", "client_id", parse_text),
    "client_secret": Key("settings", "client_secret", parse_text),
    "token": Key("settings", "token", parse_text),
    "session": Key("settings", "session", _parse_path),
    "endpoint": Key("settings", "endpoint", parse_endpoint),
    "state_dir": Key("settings", "state_dir", _parse_path),
    "timeout": Key("settings", "timeout", parse_seconds),
    "idle_timeout": Key("settings", "idle_timeout", parse_seconds),
    "local_model": Key("settings", "local_model", parse_text),
    "runtime": Key("settings", "runtime", parse_runtime),
    "tls.ca_file": Key("settings", "tls_ca_file", _parse_path),
    "security.level": Key("settings", "security_level", parse_level),
    "security.encryption_key": Key("settings", "encryption_key", _parse_encryption_key),
    "security.encryption_key_file": Key("settings", "encryption_key_file", _parse_path),
    "security.seal_channels": Key("settings", "seal_channels", parse_flag),
    "security.worker_key": Key("settings", "worker_keys", _parse_worker_keys),
    "security.enable_audit_logs": Key("settings", "enable_audit_logs", parse_flag),
    "security.audit_keep_days": Key("settings", "audit_keep_days", parse_count),
    "orchestrator.auto_scaling": Key("settings", "auto_scaling", parse_flag),
    "orchestrator.pool_size": Key("settings", "pool_size", _parse_pool_size),
    "orchestrator.max_concurrency": Key("settings", "max_concurrency", parse_count),
    "orchestrator.reserve": Key("settings", "reserve", parse_reserve),
    "orchestrator.monitoring_interval": Key("settings", "monitoring_interval", parse_number),
    "uid_range.first": Key("uid_range", "first", _parse_uid),
    "uid_range.count": Key("uid_range", "count", _parse_uid),
    **{
        f"default_resources.{key}": Key("resources", field, partial(parse_resource, key))
        for key, field in RESOURCE_FIELDS.items()
    },
}
"""Path -> setting; all there are."""

CREDENTIALS = ("api_key", "client_id", "client_secret", "token", "session")
"""The names that ``auth_config`` may hold."""

SECTIONS = frozenset(path.partition(".")[0] for path in KEYS if "." in path)
"""The top-level names that hold names themselves."""

POLICIES = "policies"
"""The top-level name of rules, which add up where other settings replace each other."""

TOP = frozenset(path.partition(".")[0] for path in KEYS) | {POLICIES}
"""All top-level names."""

_NULL_IS_A_VALUE = frozenset({"timeout", "idle_timeout"})
_WITHOUT_SECTION = {
    # Named so by the documentation, and the last one like them.
    "SANDBOX_ENCRYPTION_KEY": "security.encryption_key",
    "SANDBOX_ENCRYPTION_KEY_FILE": "security.encryption_key_file",
    "SANDBOX_SEAL_CHANNELS": "security.seal_channels",
    "SANDBOX_WORKER_KEY": "security.worker_key",
    "SANDBOX_ENABLE_AUDIT_LOGS": "security.enable_audit_logs",
    "SANDBOX_AUDIT_KEEP_DAYS": "security.audit_keep_days",
}
_VARIABLES = _WITHOUT_SECTION | {
    f"SANDBOX_{path.replace('.', '_').upper()}": path
    for path in KEYS
    if path not in _WITHOUT_SECTION.values()
}


class Sources:
    """What was written where; a later source goes before an earlier one."""

    def __init__(self, faults: Faults) -> None:
        self.written: dict[str, Written] = {}
        self.rules: dict[str, tuple[Rule, ...]] = {}  # by source
        self._faults = faults

    def add(self, data: Mapping[str, object], source: str) -> None:
        """Note a mapping shaped as the configuration file; nothing written is nothing noted."""
        with self._faults.collect(source):
            for name, value in parse_mapping(data, source).items():
                if name == POLICIES:
                    with self._faults.collect(source):
                        self.rules[source] = (
                            () if value is None else parse_rules(value, POLICIES, source)
                        )
                    continue
                if name not in SECTIONS:
                    self._note(name, value, source, TOP)
                    continue
                with self._faults.collect(source):
                    for key, item in parse_mapping(value, name).items():
                        known = {p.partition(".")[2] for p in KEYS if p.startswith(f"{name}.")}
                        self._note(f"{name}.{key}", item, source, known)

    def add_environment(self, environ: Mapping[str, str]) -> None:
        """Note the ``SANDBOX_*`` variables; an empty one is not set."""
        for variable, value in environ.items():
            if not variable.startswith("SANDBOX_") or variable == "SANDBOX_CONFIG" or not value:
                continue
            path = _VARIABLES.get(variable)
            if path is not None:
                self.written[path] = Written(value, variable)
            elif close := closest(variable, _VARIABLES, alike=0.85):
                self._faults.add(variable, f'unknown variable; did you mean "{close}"?')

    def add_credentials(self, data: object) -> None:
        """Note ``auth_config``."""
        with self._faults.collect():
            for name, value in parse_mapping(data, "auth_config").items():
                if name in CREDENTIALS:
                    self._note(name, value, "the argument auth_config", CREDENTIALS)
                else:
                    what = f"unknown{suggestion(name, CREDENTIALS)}"
                    self._faults.add(f"auth_config.{name}", what)

    def parse(self) -> dict[str, dict[str, Any]]:
        """Return group -> field -> value; what cannot be read becomes a fault."""
        fields: dict[str, dict[str, Any]] = {key.group: {} for key in KEYS.values()}
        for path, written in self.written.items():
            key = KEYS[path]
            with self._faults.collect(written.source):
                fields[key.group][key.field] = key.parse(written.value, path)
        return fields

    def _note(self, path: str, value: object, source: str, known: Collection[str]) -> None:
        if path not in KEYS:
            what = f"unknown{suggestion(path.rpartition('.')[2], known)} (from {source})"
            self._faults.add(path, what)
        elif value is not None or path in _NULL_IS_A_VALUE:
            self.written[path] = Written(value, source)
