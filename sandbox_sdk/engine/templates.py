"""Templates: which Python world a sandbox sees. Has them built, and keeps them while in use."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import re
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import anyio
import attrs
from anyio.to_thread import run_sync

from sandbox_sdk.engine import reaper, venvs, view
from sandbox_sdk.engine.template_store import KEY, Named, TemplateStore
from sandbox_sdk.errors import SandboxError
from sandbox_sdk.isolation.runtimes.base import View
from sandbox_sdk.parse import describe, fault
from sandbox_sdk.policies import LEVELS
from sandbox_sdk.store.folders import state_error
from sandbox_sdk.values import SandboxSpec, TemplateInfo

BUILT_IN = ("python", "host")
"""The templates that need no building: without, and with, this environment's packages."""

log = logging.getLogger("sandbox_sdk.templates")

_LAYOUT = "1"  # of what is built; another one makes other keys
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_WAIT_SECONDS = 0.1


@attrs.frozen(kw_only=True)
class Template:
    """A template that is ready to use.

    Attributes:
        key: ``python``, ``host``, or the digest of a built one.
        view: What its sandboxes see of this host.
        preload: The modules to import before a sandbox starts; no part of ``key``.
    """

    key: str
    view: View
    preload: tuple[str, ...] = ()


def key_of(packages: Sequence[str]) -> str:
    """Return the key of the template with these requirements, for this interpreter and machine."""
    facts = [
        _LAYOUT,
        venvs.executable(),
        sys.base_prefix,
        sys.version,
        str(sysconfig.get_config_var("SOABI")),
        platform.machine(),
        *packages,
    ]
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()[:32]


class Templates:
    """The templates of one state folder, as one client uses them.

    A template that a sandbox was started from is locked against removal until ``release()``.

    Args:
        folder: Where they are kept; it exists.

    Attributes:
        store: Those that are built; everything of it blocks.
    """

    def __init__(self, folder: Path) -> None:
        self.store = TemplateStore(folder)
        self._ready: dict[str, Template] = {}
        self._held: list[int] = []
        self._locks: dict[str, anyio.Lock] = {}  # each guards one key of _ready

    async def resolve(self, spec: SandboxSpec, agent: Path) -> Template:
        """Return the template of a sandbox, built first if it must be, and hold it.

        Args:
            spec: How the sandbox was asked for.
            agent: The agent's folder on the host.

        Raises:
            TemplateError: It was removed or changed, or cannot be built.
            StateError: The state folder cannot be used.
        """
        key = _key(spec)
        async with self._locks.setdefault(key, anyio.Lock(fast_acquire=True)):
            if key not in self._ready:
                if spec.packages:
                    await self.build(spec.packages)
                self._ready[key] = await run_sync(self._take, key, agent)
        return attrs.evolve(self._ready[key], preload=spec.preload)

    async def pin(self, spec: SandboxSpec) -> SandboxSpec:
        """Replace a template's name by what it means now, and see that a built one is there.

        Raises:
            TemplateError: There is none of that name or key.
        """
        if spec.template is None or spec.template in BUILT_IN:
            return spec
        named = await run_sync(lambda: self.store.named(str(spec.template), also=BUILT_IN))
        preload = tuple(dict.fromkeys((*named.preload, *spec.preload)))
        return attrs.evolve(spec, template=named.key, preload=preload)

    def known_by(self, spec: SandboxSpec) -> tuple[str, ...]:
        """Return the key of a sandbox's template, built or not, and the names that mean it now.

        Raises:
            StateError: The names cannot be read.
        """
        key = _key(spec)
        try:
            return (key,) if key in BUILT_IN else (key, *self.store.names_of(key))
        except OSError as error:
            if isinstance(error, SandboxError):
                raise
            raise state_error(error, "the names of templates cannot be read") from error

    async def build(
        self, packages: Sequence[str], *, name: str | None = None, preload: Sequence[str] = ()
    ) -> TemplateInfo:
        """Build the template with these requirements, unless it is there, and name it.

        Another process that builds the same one is waited for. Cancelling ends the build.

        Args:
            packages: Requirements as ``parse_packages`` gives them.
            name: A name for it; it goes over from another template that had it.
            preload: Modules that sandboxes asking for it by its name import ahead.

        Raises:
            ConfigError: The name is none, or modules to preload have no name to go with.
            TemplateError: It cannot be built.
            StateError: The state folder cannot be used.
        """
        if not packages:
            raise fault("packages", "must name one at least")
        if name is not None:
            _check_name(name)
        elif preload:
            raise fault("preload", "belongs to a template's name: give name too")
        key = key_of(packages)
        try:
            if (lock := await self._claim(key)) is not None:
                try:
                    await self._make(key, packages, lock)
                finally:
                    os.close(lock)
            if name is not None:
                await run_sync(self.store.name, name, Named(key=key, preload=tuple(preload)))
        except OSError as error:
            if isinstance(error, SandboxError):
                raise
            raise state_error(error, f"template {key} cannot be kept") from error
        return await run_sync(self.store.info, key)

    def release(self) -> None:
        """Let go of every template; no sandbox of this client is left. Idempotent."""
        self._ready.clear()
        while self._held:
            os.close(self._held.pop())

    async def _claim(self, key: str) -> int | None:
        """Return the lock with which to build, once nobody else is at it; ``None`` if built."""
        told = False
        while not await run_sync(self.store.venv(key).exists):
            try:
                return await run_sync(self.store.claim, key)
            except BlockingIOError:
                if not told:
                    _tell(key, "waiting for another process, which builds this template")
                told = True
            await anyio.sleep(_WAIT_SECONDS)
        return None

    async def _make(self, key: str, packages: Sequence[str], lock: int) -> None:
        place = self.store.place(key)
        try:
            versions = await venvs.build(
                place, packages, keep_open=lock, tell=lambda step: _tell(key, step)
            )
            await run_sync(self.store.finish, key, packages, versions)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await run_sync(reaper.remove_tree, place)
            raise
        _tell(key, "the template is ready")

    def _take(self, key: str, agent: Path) -> Template:
        """Return a template, a built one locked and seen to be untouched. Blocks."""
        if key == "host":
            return Template(key=key, view=view.host_view(agent))
        empty = self.store.empty()
        if key == "python":
            return Template(key=key, view=view.python_view(agent, empty=empty))
        self._held.append(self.store.hold(key))
        seen = view.packages_view(agent, venv=self.store.venv(key), empty=empty)
        return Template(key=key, view=seen)


def _key(spec: SandboxSpec) -> str:
    """Return the key of a sandbox's template."""
    key = key_of(spec.packages) if spec.packages else spec.template
    return key or LEVELS[spec.security_level].default_template


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or name in BUILT_IN or KEY.fullmatch(name):
        raise fault(
            "name",
            "must be 1 to 64 letters, digits, '_', '.' and '-', begin with a letter, and not be "
            f"{' or '.join(BUILT_IN)} or look like a key, not {describe(name)}",
        )


def _tell(key: str, step: str) -> None:
    log.info("template.step", extra={"template": key, "step": step})
