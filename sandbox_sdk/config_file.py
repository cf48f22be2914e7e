"""Find and read ``config.yaml``; the only module that knows YAML."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandbox_sdk.errors import ConfigError
from sandbox_sdk.parse import fault, parse_mapping

if TYPE_CHECKING:
    from ruamel.yaml.events import Event

LARGEST_FILE = 64 * 1024
"""The most bytes a configuration file may have; reading this much takes a second at worst."""

DEEPEST = 16
"""How deep the mappings and lists of a configuration file may nest."""


def read_configuration(
    environ: Mapping[str, str], known: Collection[str]
) -> tuple[Mapping[str, object], str]:
    """Return what the configuration file in charge holds, and its name; both empty if none is.

    Args:
        environ: The environment, for ``SANDBOX_CONFIG``.
        known: The top-level keys by which a file is known to be ours.

    Raises:
        ConfigError: ``SANDBOX_CONFIG`` names no file, or the file cannot be read.
    """
    if named := environ.get("SANDBOX_CONFIG"):
        return read_file(Path(named).expanduser()), named
    here = Path("config.yaml")
    if here.is_file():
        found = read_file(here)
        if not found or not found.keys().isdisjoint(known):
            return found, f"./{here}"
    # Imported on use, as `import sandbox_sdk` must stay cheap.
    from platformdirs import user_config_path

    own = user_config_path("sandbox-sdk", appauthor=False) / "config.yaml"
    return (read_file(own), str(own)) if own.is_file() else ({}, "")


def read_file(path: Path) -> Mapping[str, object]:
    """Return the mapping that a YAML file holds.

    Aliases and anchors are refused, since a few of them make a file endless. The file's text is
    in no error, as it may hold secrets.

    Raises:
        ConfigError: It cannot be read, is too large, not YAML, or not a mapping.
    """
    # Imported on use: it costs more than the rest of the settings, and most users have no file.
    from ruamel.yaml import YAML
    from ruamel.yaml.constructor import DuplicateKeyError
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    text = _read_text(path)
    # Any: ruamel leaves its streams untyped and gives plain values of any shape.
    yaml: Any = YAML(typ="safe", pure=True)
    try:
        _check_shape(yaml.parse(text), path)
        loaded = yaml.load(text)
    except DuplicateKeyError as error:
        raise fault(str(path), f"a name stands there twice{_place(error)}") from None
    except MarkedYAMLError as error:
        raise fault(str(path), f"it is not valid YAML{_place(error)}") from None
    except (YAMLError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise fault(str(path), "it is not valid YAML") from None
    return parse_mapping(loaded, str(path))


def _check_shape(events: Iterable[Event], path: Path) -> None:
    from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent

    depth = 0
    for event in events:
        if isinstance(event, AliasEvent):
            raise fault(str(path), "aliases (*name) are not allowed: write the value out")
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > DEEPEST:
            raise fault(str(path), f"it nests deeper than {DEEPEST} levels")


def _read_text(path: Path) -> str:
    try:
        # Non-blocking, so that a named pipe without a writer does not hang.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            data = file.read(LARGEST_FILE + 1) or b""
    except OSError as error:
        raise fault(str(path), f"cannot be read: {error.strerror}") from error
    if len(data) > LARGEST_FILE:
        raise fault(str(path), f"is larger than {LARGEST_FILE} bytes, which no settings need")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise fault(str(path), "is not UTF-8 text") from None


# Any: ruamel leaves the marks of its MarkedYAMLError untyped.
def _place(error: Any) -> str:
    mark = error.problem_mark
    return "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
