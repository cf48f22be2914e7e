"""Read what Python packages a user asks for: requirement strings, or a file of them.

Whatever was written becomes the same thing: lines that pip and uv understand, sorted, each a name
with extras, versions, a marker and hashes. Nothing else is a package here: an address, a path or a
repository would have to be built by running its code, and could change under the same name.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any, cast

from sandbox_sdk.parse import Faults, describe, fault
from sandbox_sdk.values import MIB

MOST_PACKAGES = 2000
"""The most requirements of one template."""

_LARGEST_FILE = 16 * MIB
_LONGEST = 64 * 1024  # a package with wheels for every platform has a hundred hashes
_EXPORT = "write one with: uv export --format pylock.toml --output-file pylock.toml"
_OTHER_LOCKS = ("uv.lock", "poetry.lock", "Pipfile.lock", "pyproject.toml", "pdm.lock")

# Source: the version specifiers and dependency specifiers of packaging.python.org.
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_CLAUSE = r"(?:===|==|!=|<=|>=|~=|<|>)\s*[A-Za-z0-9.*+!_-]+"
_REQUIREMENT = re.compile(
    rf"(?P<name>{_NAME})\s*(?:\[(?P<extras>[^\]]*)\])?\s*"
    rf"(?P<versions>\(?\s*{_CLAUSE}(?:\s*,\s*{_CLAUSE})*\s*\)?)?\s*"
    r"(?:;\s*(?P<marker>[^\n#]+?))?\s*"
    r"(?P<hashes>(?:\s--hash[= ]sha(?:256|384|512):[0-9a-f]{64,128})*)\s*"
)
_MODULE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")
_COMMENT = re.compile(r"(^|\s)#.*$")


# Any, here and below: what callers and files hold is checked element by element.
def parse_packages(value: Any, path: str = "packages") -> tuple[str, ...]:
    """Return the requirements that a user asks for, each in one form, sorted.

    Args:
        value: Requirement strings, such as ``["numpy==2.*", "rich"]``; or the path of a
            ``requirements.txt`` or ``pylock.toml``, which is read now.
        path: What faults begin with.

    Raises:
        ConfigError: One is no requirement, or the file cannot be read; all faults at once.
    """
    if value is None:
        return ()
    if isinstance(value, str | os.PathLike):
        return _from_file(Path(os.fspath(cast("str", value))), path)
    listed = _listed(value, path, 'requirements such as ["numpy"], or the path of a file of them')
    return _read(((f"{path}.{number}", item) for number, item in enumerate(listed)), path)


def parse_preload(value: Any, path: str = "preload") -> tuple[str, ...]:
    """Return the modules to import ahead, in the order asked, each once.

    Raises:
        ConfigError: One is no module's name; all faults at once.
    """
    if value is None:
        return ()
    modules = _listed(value, path, 'modules such as ["numpy"]')
    faults = Faults()
    for number, item in enumerate(modules):
        if not isinstance(item, str) or not _MODULE.fullmatch(item):
            faults.add(f"{path}.{number}", f"must be a module such as numpy, not {describe(item)}")
    faults.check()
    return tuple(dict.fromkeys(modules))


def _listed(value: Any, path: str, what: str) -> list[Any]:
    # No isinstance(): it would take what is known of the elements, that they may be anything.
    if issubclass(type(value), str | bytes) or not issubclass(type(value), Iterable):
        raise fault(path, f"must be a list of {what}, not {describe(value)}")
    return list(value)


def _read(lines: Iterable[tuple[str, Any]], path: str) -> tuple[str, ...]:
    """Return the requirements of lines, each with its place; all faults at once."""
    faults = Faults()
    found: set[str] = set()
    with faults.collect():
        for place, line in lines:
            with faults.collect():
                found.add(_requirement(line, place))
    if len(found) > MOST_PACKAGES:
        faults.add(path, f"are {len(found)}, more than {MOST_PACKAGES}")
    faults.check()
    return tuple(sorted(found))


def _requirement(value: object, path: str) -> str:
    """Return one requirement in the one form that all of its spellings share."""
    if not isinstance(value, str):
        raise fault(path, f'must be a requirement such as "numpy==2.*", not {describe(value)}')
    # The pattern would try a longer gap in more ways than there is time for.
    text = re.sub(" +", " ", value.strip())
    is_line = len(text) <= _LONGEST and text.isprintable()
    match = _REQUIREMENT.fullmatch(text) if is_line else None
    if match is None:
        raise fault(path, f"no requirement: {describe(text)}{_advice(text)}")
    extras = sorted(_canonical(part) for part in (match["extras"] or "").split(",") if part.strip())
    versions = sorted(re.sub(r"[\s()]", "", match["versions"] or "").split(","))
    return "".join(
        (
            _canonical(match["name"]),
            f"[{','.join(extras)}]" if extras else "",
            ",".join(versions),
            f" ; {match['marker'].strip()}" if match["marker"] else "",
            *(f" {part.replace(' ', '=')}" for part in sorted(_hashes(match["hashes"]))),
        )
    )


def _hashes(text: str) -> list[str]:
    return re.findall(r"--hash[= ]\S+", text)


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _advice(text: str) -> str:
    """Say what was most likely meant, or why it is refused."""
    if single := re.fullmatch(rf"({_NAME})\s*=\s*([\w.*+!-]+)", text):
        return f'; did you mean "{single[1]}=={single[2]}"?'
    if version := re.fullmatch(rf"({_NAME})[\s@]+v?(\d[\w.*+!-]*)", text):
        return f'; did you mean "{version[1]}=={version[2]}"?'
    if text.startswith("-"):
        return (
            "; options are not read: list the packages, and tell uv or pip in its own "
            "configuration where to look for them"
        )
    if re.search(r"://|^[./~]|@|/", text):
        return (
            "; an address, path or repository is refused, as its content can change and may "
            "have to be built: put its wheel into a find-links folder, and name package and version"
        )
    return '; write for example "numpy", "numpy==2.4.6" or "rich>=13,<15"'


def _from_file(file: Path, path: str) -> tuple[str, ...]:
    where = f"{path} ({file.name[:60]})"
    if file.name in _OTHER_LOCKS:
        raise fault(where, f"this kind of file is not read; {_EXPORT}")
    if file.suffix not in (".txt", ".in", ".toml"):
        raise fault(
            where,
            'must be a list such as ["numpy"], or the path of a requirements.txt or pylock.toml',
        )
    try:
        if (size := file.stat().st_size) > _LARGEST_FILE:
            raise fault(where, f"is {size} bytes, more than {_LARGEST_FILE}")
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise fault(where, f"cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise fault(where, "is not UTF-8 text") from error
    lines = _of_pylock(text, where) if file.suffix == ".toml" else _of_requirements(text)
    found = _read(((f"{where}, {place}", line) for place, line in lines), where)
    if not found:
        raise fault(where, "names no package")
    return found


def _of_requirements(text: str) -> Generator[tuple[str, str]]:
    """Yield the requirements of a requirements file, each with its place."""
    joined, begun = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        begun = begun if joined else number
        joined += _COMMENT.sub("", line)
        if joined.endswith("\\"):
            joined = f"{joined[:-1]} "
            continue
        if joined.strip():
            yield f"line {begun}", joined
        joined = ""
    if joined.strip():
        yield f"line {begun}", joined


def _of_pylock(text: str, where: str) -> Generator[tuple[str, str]]:
    """Yield the packages of a lock file, each with its place. Source: PEP 751."""
    try:
        found: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise fault(where, f"is not TOML: {error}") from error
    packages: Any = found.get("packages")
    if not str(found.get("lock-version")).startswith("1.") or not issubclass(type(packages), list):
        raise fault(where, f"is no lock file of version 1; {_EXPORT}")
    for number, package in enumerate(packages):
        yield f"package {number}", _locked(package, f"{where}, package {number}")


def _locked(package: Any, path: str) -> str:
    """Return a locked package as a requirement that takes only the wheels it was locked with."""
    try:
        name, version = str(package["name"]), str(package["version"])
        digests = [str(wheel["hashes"]["sha256"]) for wheel in package["wheels"]]
    except (KeyError, TypeError):
        raise fault(
            path,
            "has no name, version, or wheels with their sha256; a source, address, path or "
            "repository is refused, as it would have to be built",
        ) from None
    marker = f" ; {package['marker']}" if "marker" in package else ""
    return f"{name}=={version}{marker}" + "".join(f" --hash=sha256:{each}" for each in digests)
