"""What a process is allowed beyond its uid, as the kernel itself reports it."""

from __future__ import annotations

FIELDS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
"""The capability sets of ``/proc/<pid>/status``."""


def status(pid: str = "self") -> dict[str, str]:
    """Return ``/proc/<pid>/status`` as name -> text.

    Raises:
        OSError: The process is gone.
    """
    with open(f"/proc/{pid}/status") as lines:
        fields = (line.split(":", 1) for line in lines)
        return {name: value.strip() for name, value in fields}


def held(fields: dict[str, str]) -> list[str]:
    """Return the capability sets of ``status()`` that are not empty."""
    return [name for name in FIELDS if int(fields[name], 16) != 0]
