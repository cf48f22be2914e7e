"""Check what a caller asks of ``create_sandbox``, and make it a ``SandboxSpec``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

import attrs

from sandbox_sdk.config import Settings
from sandbox_sdk.parse import (
    Faults,
    describe,
    fault,
    parse_level,
    parse_mapping,
    parse_runtime,
    parse_seconds,
    parse_seed,
    parse_text,
    suggestion,
)
from sandbox_sdk.policies import LEVELS, WAIVABLE, Policy
from sandbox_sdk.requirements import parse_packages, parse_preload
from sandbox_sdk.resources import parse_resources
from sandbox_sdk.values import KIB, MIB, Resources, SandboxSpec

LONGEST_NAME = 200
"""The most characters of a sandbox's name."""

LARGEST_FILES = 50 * MIB
"""The most bytes of all initial files together."""

LARGEST_ENV = 1 * MIB
"""The most bytes of all environment variables together."""

LARGEST_METADATA = 64 * KIB
"""The most bytes of all metadata together."""

# The kernel's limit of one argument or variable, its NUL included: MAX_ARG_STRLEN, execve(2).
_LONGEST_VARIABLE = 128 * KIB - 1
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHORT_SECRET = 8


def parse_spec(
    name: object,
    *,
    settings: Settings,
    resources: Resources | Mapping[str, object] | None = None,
    timeout: float | None = None,
    idle_timeout: float | None = None,
    security_level: str | None = None,
    waive: Iterable[str] = (),
    env: Mapping[str, str] | None = None,
    files: Mapping[str, bytes | str] | None = None,
    metadata: Mapping[str, str] | None = None,
    template: str | None = None,
    packages: Iterable[str] | str | os.PathLike[str] = (),
    preload: Iterable[str] = (),
    network: str | None = None,
    runtime: str | None = None,
    seed: int | None = None,
) -> SandboxSpec:
    """Return the spec of a sandbox; what is ``None`` comes from the settings.

    Args:
        name: 1 to 200 printable characters.
        settings: The settings in force.
        resources: Names of ``default_resources`` to values, or a ``Resources``.
        timeout: Seconds above 0.
        idle_timeout: Seconds above 0.
        security_level: ``low``, ``medium``, ``high``, ``maximum`` or ``unsafe``.
        waive: Names that the level lets waive.
        env: Names of letters, digits and ``_`` to text; no value may hold a secret of the settings.
        files: Paths inside the workspace to content; at most 50 MiB together.
        metadata: Text to text, at most 64 KiB together.
        template: ``python``, ``host``, or a built template's name or key.
        packages: Requirements, or the path of a file of them, which is read: this may block.
        preload: Names of modules.
        network: ``none``.
        runtime: ``zygote`` or ``bubblewrap``.
        seed: 0 to 2**32 - 1.

    Raises:
        ConfigError: Something is wrong; all faults at once, each with its path.
    """
    faults = Faults()
    spec = SandboxSpec(
        name="",
        resources=settings.resources,
        timeout=settings.timeout,
        idle_timeout=settings.idle_timeout,
        security_level=settings.security_level,
        runtime=settings.runtime,
    )
    with faults.collect():
        spec = attrs.evolve(spec, name=_parse_name(name))
    with faults.collect():
        spec = attrs.evolve(spec, resources=parse_resources(resources, settings.resources))
    if timeout is not None:
        with faults.collect():
            spec = attrs.evolve(spec, timeout=parse_seconds(timeout, "timeout"))
    if idle_timeout is not None:
        with faults.collect():
            spec = attrs.evolve(spec, idle_timeout=parse_seconds(idle_timeout, "idle_timeout"))
    if security_level is not None:
        with faults.collect():
            spec = attrs.evolve(spec, security_level=parse_level(security_level, "security_level"))
    with faults.collect():
        spec = attrs.evolve(spec, waive=_parse_waive(waive, LEVELS.get(spec.security_level)))
    spec = attrs.evolve(
        spec,
        env=_parse_env(env, settings.secrets, faults),
        files=_parse_files(files, faults),
        metadata=_parse_metadata(metadata, settings.secrets, faults),
    )
    with faults.collect():
        spec = attrs.evolve(spec, packages=parse_packages(packages))
    with faults.collect():
        spec = attrs.evolve(spec, preload=parse_preload(preload))
    if template is not None:
        with faults.collect():
            spec = attrs.evolve(spec, template=parse_text(template, "template"))
        _check_world(spec, faults)
    if runtime is not None:
        with faults.collect():
            spec = attrs.evolve(spec, runtime=parse_runtime(runtime, "runtime"))
    if seed is not None:
        with faults.collect():
            spec = attrs.evolve(spec, seed=parse_seed(seed, "seed"))
    if network not in (None, "none"):
        faults.add(
            "network",
            f"{describe(network)} is refused: this version gives no sandbox a network; leave it "
            'out, or write "none"',
        )
    _check_fit(spec, faults)
    faults.check()
    return spec


def _check_world(spec: SandboxSpec, faults: Faults) -> None:
    if spec.packages and spec.template != "python":
        faults.add(
            "packages",
            "make a template of their own, with the interpreter and nothing else: leave out "
            f"template={describe(spec.template)}, and name every package that is needed",
        )


def _parse_name(name: object) -> str:
    if not isinstance(name, str):
        raise fault("name", f"must be text, not {describe(name)}")
    # Not printable: newline, NUL, control and bidirectional characters, lone surrogates.
    if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
        raise fault(
            "name", f"must be 1 to {LONGEST_NAME} printable characters, not {describe(name)}"
        )
    return name


def _parse_waive(waive: object, rules: Policy | None) -> tuple[str, ...]:
    """Return the waivers, each once; a level without rules is refused elsewhere."""
    if isinstance(waive, str) or not isinstance(waive, Iterable):
        raise fault("waive", f'must be names, as in waive=("landlock",), not {describe(waive)}')
    faults = Faults()
    names: dict[str, None] = {}
    # Whatever the caller's iterable holds is checked here.
    for name in list[object](waive):  # pyright: ignore[reportUnknownArgumentType]
        if not isinstance(name, str) or name not in WAIVABLE:
            hint = suggestion(name, WAIVABLE) if isinstance(name, str) else ""
            faults.add("waive", f"nothing that can be waived is called {describe(name)}{hint}")
        elif rules is not None and name not in rules.waivable:
            why = "is made of it" if name in rules.walls else "does not require it"
            faults.add("waive", f'level "{rules.level}" {why}: leave out "{name}"')
        else:
            names[name] = None
    faults.check()
    return tuple(names)


def _parse_env(env: object, secrets: frozenset[str], faults: Faults) -> dict[str, str]:
    checked: dict[str, str] = {}
    with faults.collect():
        for key, value in parse_mapping(env, "env").items():
            path = f"env.{key[:60]!r}"
            if not _VARIABLE.fullmatch(key):
                faults.add(path, "a name must be letters, digits and _, not begin with a digit")
            with faults.collect():
                text = _parse_plain(value, path)
                size = len(key) + 1 + len(text.encode())
                if size > _LONGEST_VARIABLE:
                    raise fault(
                        path, f"is longer than {_LONGEST_VARIABLE} bytes, the kernel's limit"
                    )
                _refuse_secret(text, secrets, path)
                checked[key] = text
    if sum(len(key) + len(value.encode()) + 2 for key, value in checked.items()) > LARGEST_ENV:
        faults.add("env", f"is more than {LARGEST_ENV} bytes together; write a file instead")
    return checked


def _parse_metadata(metadata: object, secrets: frozenset[str], faults: Faults) -> dict[str, str]:
    checked: dict[str, str] = {}
    with faults.collect():
        for key, value in parse_mapping(metadata, "metadata").items():
            path = f"metadata.{key[:60]!r}"
            with faults.collect():
                text = _parse_plain(value, path)
                _refuse_secret(text, secrets, path)
                checked[_parse_plain(key, path)] = text
    if (
        sum(len(key.encode()) + len(value.encode()) for key, value in checked.items())
        > LARGEST_METADATA
    ):
        faults.add(
            "metadata", f"is more than {LARGEST_METADATA} bytes together; write a file instead"
        )
    return checked


def _parse_files(files: object, faults: Faults) -> dict[str, bytes]:
    checked: dict[str, bytes] = {}
    with faults.collect():
        for key, value in parse_mapping(files, "files").items():
            path = f"files.{key[:60]!r}"
            with faults.collect():
                content = (
                    value
                    if isinstance(value, bytes)
                    else _parse_plain(value, path, nul=True).encode()
                )
                inside = _parse_inside(key, path)
                if inside in checked:
                    raise fault(path, "names the same file as another")
                checked[inside] = content
    for inside in checked:
        for parent in PurePosixPath(inside).parents:
            if str(parent) in checked:
                faults.add(
                    f"files.{inside[:60]!r}",
                    f"{str(parent)[:60]!r} is a file as well, so cannot be its folder",
                )
    return checked


def _parse_inside(key: str, path: str) -> str:
    """Return a path inside the workspace without ``.`` and doubled slashes."""
    text = _parse_plain(key, path)
    parts = PurePosixPath(text).parts
    if text.startswith("/") or ".." in parts:
        raise fault(path, "must stay inside the workspace: relative, without '..'")
    if not parts or text.endswith(("/", "/.")):
        raise fault(path, "must name a file")
    if len(text.encode()) > 4000 or any(len(part.encode()) > 255 for part in parts):
        raise fault(path, "is longer than the kernel allows: 255 bytes a name, 4000 a path")
    return "/".join(parts)


def _parse_plain(value: object, path: str, *, nul: bool = False) -> str:
    if not isinstance(value, str):
        raise fault(path, f"must be text, not {describe(value)}")
    if "\0" in value and not nul:
        raise fault(path, "must not hold a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise fault(path, "must be text that UTF-8 can hold, without lone surrogates") from None
    return value


def _refuse_secret(text: str, secrets: frozenset[str], path: str) -> None:
    if any(
        text == secret or (len(secret) >= _SHORT_SECRET and secret in text) for secret in secrets
    ):
        raise fault(path, "holds a secret of the settings, and no secret enters a sandbox")


def _check_fit(spec: SandboxSpec, faults: Faults) -> None:
    size = sum(map(len, spec.files.values()))
    if size > LARGEST_FILES:
        faults.add(
            "files",
            f"are {size} bytes together, more than {LARGEST_FILES}; use sandbox.files.write()",
        )
    if size > spec.resources.disk_bytes:
        faults.add("files", f"are {size} bytes together, more than resources.disk allows")
    if len(spec.files) > spec.resources.disk_files:
        faults.add("files", f"are {len(spec.files)}, more than resources.disk_files allows")
    biggest = max(map(len, spec.files.values()), default=0)
    if biggest > spec.resources.file_size_bytes:
        faults.add("files", f"one is {biggest} bytes, more than resources.file_size allows")
