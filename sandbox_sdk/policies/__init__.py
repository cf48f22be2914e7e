"""Security levels as data: what each promises, and the rules it is made of."""

from __future__ import annotations

from collections.abc import Mapping

from sandbox_sdk.errors import IsolationError
from sandbox_sdk.policies.admission import Admission, FixedAdmission, SlotRequest
from sandbox_sdk.policies.base import Policy, SocketFamily
from sandbox_sdk.policies.levels import HIGH, LOW, MEDIUM
from sandbox_sdk.policies.purse import Purse
from sandbox_sdk.policies.waivers import WAIVABLE
from sandbox_sdk.values import SandboxSpec, SecurityLevel

__all__ = [
    "BUILT", "HIGH", "LEVELS", "LOW", "MEDIUM", "STRONG", "WAIVABLE", "Admission", "FixedAdmission",
    "Policy", "Purse", "SlotRequest", "SocketFamily", "policy", "template_of",
]  # fmt: skip

LEVELS: Mapping[SecurityLevel, Policy] = {rules.level: rules for rules in (LOW, MEDIUM, HIGH)}
"""The levels that there are rules for, weakest first."""

STRONG: frozenset[SecurityLevel] = frozenset({"high", "maximum"})
"""The levels whose records and channels are always sealed."""

BUILT: frozenset[SecurityLevel] = frozenset({"low", "medium", "high"})
"""The levels that a runtime of this version keeps."""

_MISSING: Mapping[SecurityLevel, str] = {
    "maximum": "a separate kernel between code and host (gVisor)",
    "unsafe": "a plain process, by that name only",
}


def policy(level: SecurityLevel) -> Policy:
    """Return the rules of a security level.

    Raises:
        IsolationError: This version does not keep all promises of the level; the message names
            those that are missing.
    """
    if level in BUILT:
        return LEVELS[level]
    raise IsolationError(
        f'security level "{level}" is refused: this version does not keep these of its promises '
        f'yet: {_MISSING[level]}. Ask for security_level="medium", which is complete',
        level=level,
    )


def template_of(spec: SandboxSpec) -> str:
    """Return a name of what a sandbox sees of Python, for figures that are kept of its like."""
    if spec.template is not None:
        return spec.template
    return ",".join(spec.packages) or LEVELS[spec.security_level].default_template
