"""Read what users write about a sandbox's resources, within what a sandbox can live on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from sandbox_sdk.parse import (
    LARGEST_SIZE,
    Faults,
    describe,
    fault,
    parse_count,
    parse_mapping,
    parse_number,
    parse_size,
    suggestion,
)
from sandbox_sdk.values import KIB, MIB, Resources


@attrs.frozen
class _Resource:
    field: str
    parse: Callable[[object, str], float]
    least: float
    most: float
    least_text: str


_RESOURCES = {
    "memory": _Resource("memory_bytes", parse_size, 32 * MIB, LARGEST_SIZE, "32MiB"),
    "cpu": _Resource("cpu", parse_number, 0.01, 1024, "0.01"),
    "pids": _Resource("pids", parse_count, 4, 2**22, "4"),
    "disk": _Resource("disk_bytes", parse_size, MIB, LARGEST_SIZE, "1MiB"),
    "disk_files": _Resource("disk_files", parse_count, 16, 2**31, "16"),
    "tmp": _Resource("tmp_bytes", parse_size, 64 * KIB, LARGEST_SIZE, "64KiB"),
    "file_size": _Resource("file_size_bytes", parse_size, 4 * KIB, LARGEST_SIZE, "4KiB"),
    "open_files": _Resource("open_files", parse_count, 16, 2**20, "16"),
    "output": _Resource("output_bytes", parse_size, KIB, LARGEST_SIZE, "1KiB"),
}

RESOURCE_FIELDS: Mapping[str, str] = {key: rule.field for key, rule in _RESOURCES.items()}
"""The names that ``resources`` and ``default_resources`` may hold -> fields of ``Resources``."""


def parse_resource(key: str, value: object, path: str) -> float:
    """Return the value of one field of ``Resources``, within what a sandbox can live on.

    Raises:
        ConfigError: The value is not of its kind, too small or too large.
    """
    rule = _RESOURCES[key]
    number = rule.parse(value, path)
    if number < rule.least:
        raise fault(path, f"must be at least {rule.least_text}, not {describe(value)}")
    if number > rule.most:
        raise fault(path, f"must be at most {rule.most:.0f}, not {describe(value)}")
    return number


def parse_resources(value: object, defaults: Resources, path: str = "resources") -> Resources:
    """Return the defaults with what the mapping (or a ``Resources`` value) says instead.

    Raises:
        ConfigError: A name is unknown or a value wrong; all faults at once.
    """
    if isinstance(value, Resources):
        value = {key: getattr(value, field) for key, field in RESOURCE_FIELDS.items()}
    faults = Faults()
    # Any: each rule gives its field's own type, which the table cannot say.
    fields: dict[str, Any] = {}
    for key, item in parse_mapping(value, path).items():
        if key not in _RESOURCES:
            faults.add(f"{path}.{key}", f"unknown{suggestion(key, RESOURCE_FIELDS)}")
            continue
        with faults.collect():
            fields[RESOURCE_FIELDS[key]] = parse_resource(key, item, f"{path}.{key}")
    faults.check()
    return attrs.evolve(defaults, **fields)
