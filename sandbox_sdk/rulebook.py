"""The rules in force: those of the settings and of the host, read again when a file changes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import attrs

from sandbox_sdk.config_file import read_file
from sandbox_sdk.errors import ConfigError
from sandbox_sdk.parse import fault
from sandbox_sdk.rule_texts import parse_rules
from sandbox_sdk.rules import Rule

log = logging.getLogger("sandbox_sdk.policies")

HOST_RULES = Path("/etc/sandbox-sdk/policies.yaml")
"""The rules of the machine's operator, for all its users."""

SECTION = "policies"
"""The name under which rules stand in a file."""

_ABSENT = (0, 0, 0)


@attrs.define
class _Page:
    """What one file holds.

    Attributes:
        path: The file.
        alone: Whether it may hold nothing but rules.
        rules: What it held when it could last be read.
        stamp: By which a change is known; ``None`` is to be read.
        failure: Why it cannot be read now.
    """

    path: Path
    alone: bool = False
    rules: tuple[Rule, ...] = ()
    stamp: tuple[int, int, int] | None = None
    failure: ConfigError | None = None

    def read(self) -> None:
        """Read it, if it is not as it was."""
        try:
            stamp = _stamp(self.path)
        except OSError as error:
            self.failure = fault(str(self.path), f"cannot be read: {error.strerror}")
            self.stamp = None
            return
        if stamp == self.stamp:
            return
        self.stamp = stamp
        about = {"path": str(self.path)}
        try:
            self.rules = () if stamp == _ABSENT else self._parse()
        except ConfigError as error:
            self.failure = error
            log.warning("policies.unread", extra={**about, "reason": error.message})
        else:
            self.failure = None
            log.debug("policies.read", extra={**about, "rules": len(self.rules)})

    def _parse(self) -> tuple[Rule, ...]:
        held = read_file(self.path)
        if self.alone and (other := sorted(held.keys() - {SECTION})):
            raise fault(str(self.path), f"holds {', '.join(other)}, and may hold {SECTION} only")
        rules = held.get(SECTION)
        return () if rules is None else parse_rules(rules, SECTION, str(self.path))


class Rulebook:
    """The rules of all sources together.

    Args:
        fixed: Rules of arguments.
        config: The configuration file that holds rules, too.
        host: The file of the machine's operator; one that is not there has no rules.

    Raises:
        ConfigError: A file cannot be read.
    """

    def __init__(
        self, fixed: Sequence[Rule] = (), *, config: Path | None = None, host: Path = HOST_RULES
    ) -> None:
        self._fixed = tuple(fixed)
        self._pages = [_Page(host, alone=True)]
        if config is not None:
            self._pages.append(_Page(config))
        self.read()
        self.check()

    def read(self) -> tuple[Rule, ...]:
        """Return the rules as they stand now: a file that changed is read again.

        Of a file that can no longer be read, the rules that it held go on, and ``check()`` tells.
        """
        for page in self._pages:
            page.read()
        return (*(rule for page in self._pages for rule in page.rules), *self._fixed)

    def check(self) -> None:
        """Go on if all files could be read.

        Raises:
            ConfigError: One could not.
        """
        for page in self._pages:
            if page.failure is not None:
                raise page.failure


def _stamp(path: Path) -> tuple[int, int, int]:
    """Return what changes with a file."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return _ABSENT
    return found.st_ino, found.st_mtime_ns, found.st_size
