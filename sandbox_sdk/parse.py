"""Read the plain fields that users write: sizes, counts, cores, seconds, words.

Every function takes the value and the path it stands at, and raises a ``ConfigError`` whose one
fault begins with that path. ``Faults`` collects them, so that a user sees all at once.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import TypeVar, get_args
from urllib.parse import urlsplit

from sandbox_sdk.errors import ConfigError
from sandbox_sdk.values import Reserve, RuntimeName, SecurityLevel

Name = TypeVar("Name", bound=str)

LARGEST_SIZE = 2**53
"""The largest size in bytes that every JSON reader keeps exactly."""

_SEEDS = 2**32
_LONGEST_MISTAKE = 64  # letters of a word that may be a misspelt one; comparing takes time

_UNITS = {
    "": 1,
    "b": 1,
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", start=1)},
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", start=1)},
}
_SIZE = re.compile(r"([0-9]{1,16}(?:\.[0-9]{1,16})?) ?([a-z]*)", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]{1,16}(?:\.[0-9]{1,16})?")


def fault(path: str, what: str) -> ConfigError:
    """Return the error for one fault; the caller raises it."""
    line = f"{path}: {what}"
    return ConfigError(line, faults=(line,))


class Faults:
    """Collects faults, so that all are reported in one error."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, path: str, what: str) -> None:
        """Note one fault."""
        self._lines.append(f"{path}: {what}")

    @contextmanager
    def collect(self, source: str = "") -> Generator[None]:
        """Note the faults of a ``ConfigError`` raised inside, each with where it was written."""
        try:
            yield
        except ConfigError as error:
            suffix = f" (from {source})" if source else ""
            self._lines.extend(line + suffix for line in error.faults or (str(error),))

    def check(self) -> None:
        """Go on if there was no fault.

        Raises:
            ConfigError: There was one, or several.
        """
        if not self._lines:
            return
        if len(self._lines) == 1:
            raise ConfigError(self._lines[0], faults=tuple(self._lines))
        listed = "".join(f"\n  {line}" for line in self._lines)
        raise ConfigError(f"{len(self._lines)} faults:{listed}", faults=tuple(self._lines))


def closest(word: str, known: Iterable[str], *, alike: float = 0.6) -> str | None:
    """Return the known word that a misspelt one most likely means, if one is that much alike."""
    if len(word) > _LONGEST_MISTAKE:
        return None
    # Imported on use: only a mistake needs it.
    from difflib import get_close_matches

    found = get_close_matches(word, sorted(known), n=1, cutoff=alike)
    return found[0] if found else None


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean "x"?`` for a misspelt word, or the words there are."""
    words = sorted(known)
    close = closest(word.lower(), words)
    return f'; did you mean "{close}"?' if close else f"; known are {', '.join(words)}"


def describe(value: object) -> str:
    """Return a short description of a wrong value that is not a secret."""
    if value is None:
        return "nothing"
    if isinstance(value, str | int | float):
        text = repr(value) if not isinstance(value, int) or abs(value) < 2**64 else "a huge number"
        return text if len(text) <= 60 else f"{text[:50]}..."
    # Never repr() of a container: YAML aliases can make it endless.
    return f"a {type(value).__name__}"


def parse_size(value: object, path: str) -> int:
    """Return a size in bytes.

    A size is a whole number of bytes, or text: a decimal number, at most one space, and a unit in
    any case. ``B`` or no unit is bytes; ``kB``, ``MB``, ``GB``, ``TB`` are powers of 1000;
    ``KiB``, ``MiB``, ``GiB``, ``TiB`` are powers of 1024. A fraction of a byte is dropped. ``2G``
    and ``2Gi`` are refused: elsewhere they mean one or the other.

    Raises:
        ConfigError: It is not a size, is below one byte, or above 2**53.
    """
    size: int | None = None
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        number, unit = match.groups()
        scale = _UNITS.get(unit.lower())
        if scale is None:
            raise fault(path, f'unknown unit in {describe(value)}; write for example "2GB", "2GiB"')
        whole, _, part = number.partition(".")
        size = int(whole + part) * scale // 10 ** len(part)
    if size is None:
        wanted = 'a size such as "512MiB", "2GB" or a whole number of bytes'
        raise fault(path, f"must be {wanted}, not {describe(value)}")
    if not 1 <= size <= LARGEST_SIZE:
        raise fault(path, f"must be from 1 byte to 2**53 bytes, not {describe(value)}")
    return size


def parse_count(value: object, path: str) -> int:
    """Return a whole number; text of digits is one too.

    Raises:
        ConfigError: It is not a whole number of at least 1.
    """
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,16}", value.strip()):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise fault(path, f"must be a whole number of at least 1, not {describe(value)}")
    return value


def parse_number(value: object, path: str, what: str = "a number above 0") -> float:
    """Return a finite number above 0; text such as ``"0.5"`` is one too.

    Raises:
        ConfigError: It is not.
    """
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value)
    # NaN fails every comparison; infinity and integers beyond any float fail the second.
    match value:
        case bool():
            pass
        case int() | float() if 0 < value < LARGEST_SIZE:
            return float(value)
        case _:
            pass
    raise fault(path, f"must be {what}, not {describe(value)}")


def parse_seconds(value: object, path: str) -> float | None:
    """Return a duration in seconds, or ``None`` for no bound (nothing, or the word ``none``).

    Raises:
        ConfigError: It is neither.
    """
    if value is None or (isinstance(value, str) and value.strip().lower() == "none"):
        return None
    return parse_number(value, path, "a finite number of seconds above 0")


def parse_flag(value: object, path: str) -> bool:
    """Return a yes or no.

    Raises:
        ConfigError: It is neither true nor false.
    """
    if isinstance(value, str):
        words = {"true": True, "yes": True, "on": True, "1": True}
        words |= {"false": False, "no": False, "off": False, "0": False}
        value = words.get(value.strip().lower(), value)
    if not isinstance(value, bool):
        raise fault(path, f"must be true or false, not {describe(value)}")
    return value


def parse_text(value: object, path: str) -> str:
    """Return text that is not empty. A wrong value is not shown: it may be a secret.

    Raises:
        ConfigError: It is not text, is empty, or holds control characters.
    """
    if not isinstance(value, str):
        raise fault(path, f"must be text, not a {type(value).__name__}; put it in quotes")
    text = value.strip()
    if not text or not text.isprintable():
        raise fault(path, "must be text of at least one character, without control characters")
    return text


def parse_endpoint(value: object, path: str) -> str:
    """Return the address of a server.

    Raises:
        ConfigError: It is no ``unix://``, ``https://`` or, on this machine, ``http://`` address.
    """
    text = parse_text(value, path)
    parts = urlsplit(text)
    known = 'an address, as in "https://HOST:PORT" or "unix:///run/sandbox-sdk/server.sock"'
    if parts.scheme == "unix":
        if parts.netloc or not parts.path.startswith("/") or parts.query or parts.fragment:
            raise fault(path, f"must be {known}: the socket's path is absolute")
        return text
    try:
        host, _ = parts.hostname, parts.port  # a port that is none is an error here
    except ValueError:
        host = None
    if parts.scheme not in ("http", "https") or not host:
        raise fault(path, f"must be {known}, not {describe(value)}")
    if parts.username is not None or parts.password is not None:
        raise fault(path, "must hold no user and no password; set api_key instead")
    if parts.query or parts.fragment:
        raise fault(path, "must hold no ? and no #")
    if parts.scheme == "http" and not _is_loopback(host):
        raise fault(
            path,
            f"http:// would send keys in clear to {host}: use https://, or http:// on this "
            "machine only",
        )
    return text


def _is_loopback(host: str) -> bool:
    from ipaddress import ip_address  # imported on use: only addresses of servers need it

    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def parse_level(value: object, path: str) -> SecurityLevel:
    """Return a security level.

    Raises:
        ConfigError: There is none of that name.
    """
    levels: tuple[SecurityLevel, ...] = get_args(SecurityLevel)
    return _one_of(levels, value, path, "security level")


def parse_runtime(value: object, path: str) -> RuntimeName:
    """Return the name of a runtime.

    Raises:
        ConfigError: There is none of that name.
    """
    names: tuple[RuntimeName, ...] = get_args(RuntimeName)
    return _one_of(names, value, path, "runtime")


def parse_reserve(value: object, path: str) -> Reserve:
    """Return how much memory the places for sandboxes reserve: ``peak`` or ``limit``.

    Raises:
        ConfigError: It is neither.
    """
    known: tuple[Reserve, ...] = get_args(Reserve)
    return _one_of(known, value, path, "rule")


def _one_of(known: tuple[Name, ...], value: object, path: str, what: str) -> Name:
    for name in known:
        if value == name:
            return name
    hint = suggestion(value, known) if isinstance(value, str) else f"; known are {known}"
    raise fault(path, f"no {what} {describe(value)}{hint}")


def parse_seed(value: object, path: str) -> int:
    """Return a seed of random sources, from 0 to 2**32 - 1: numpy takes no other.

    Raises:
        ConfigError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _SEEDS:
        raise fault(path, f"must be a whole number from 0 to 2**32 - 1, not {describe(value)}")
    return value


def parse_mapping(value: object, path: str) -> Mapping[str, object]:
    """Return a mapping whose keys are text; ``None`` is an empty one. Nothing of it is shown.

    Raises:
        ConfigError: It is not a mapping, or a key is not text.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise fault(path, f"must be a mapping of names to values, not a {type(value).__name__}")
    checked: dict[str, object] = {}
    # Whatever the mapping holds is checked here.
    for key, item in value.items():  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(key, str):
            raise fault(path, "every name must be text")
        checked[key] = item
    return checked
