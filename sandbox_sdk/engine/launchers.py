"""The launchers of one client: a zygote for each template and level, and one for all programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import anyio

from sandbox_sdk.engine.launcher import Launcher
from sandbox_sdk.errors import IsolationError
from sandbox_sdk.isolation.runtimes.base import Runtime, TemplatePlan
from sandbox_sdk.isolation.runtimes.bubblewrap import Bubblewrap, find
from sandbox_sdk.isolation.runtimes.zygote import Zygote
from sandbox_sdk.values import Wall

RUNTIMES: dict[str, Callable[[], Runtime]] = {
    "zygote": Zygote,
    "bubblewrap": lambda: Bubblewrap(find()),
}
"""How each runtime is made, the preferred first."""

_ONLY_ZYGOTE = Wall(
    name="landlock",
    in_force=False,
    detail="bubblewrap, which is made of namespaces, does not put it up",
    fix='leave the runtime to the SDK or set runtime="zygote"',
)


_MOST_LAUNCHES = 10_000
"""After so many a launcher is replaced, so that nothing it might gather grows without bound."""


class Launchers:
    """Starts launchers on first use and again after their end."""

    def __init__(self, agent: Path) -> None:
        self._agent = agent
        self._runtimes: dict[str, Runtime] = {}
        self._refusals: dict[object, tuple[Wall, ...]] = {}
        self._launchers: dict[object, Launcher] = {}
        self._retired: list[Launcher] = []
        self._locks: dict[object, anyio.Lock] = {}  # each guards one entry of _launchers

    async def find(
        self, shared: TemplatePlan, key: object, wanted: str | None
    ) -> tuple[Runtime, Launcher]:
        """Return a runtime that works here, and its launcher for a template.

        Args:
            shared: What the template's sandboxes share.
            key: Tells apart templates, levels and whatever else a zygote is made for.
            wanted: The only runtime to try; ``None`` is the first that works.

        Raises:
            IsolationError: None works on this host; the message has each reason and fix.
            LaunchError: A launcher ended at once.
            TemplateError: A module could not be imported ahead.
        """
        refused: list[Wall] = []
        for name in RUNTIMES if wanted is None else (wanted,):
            runtime, missing = await self._runtime(name)
            if not (shared.policy.namespaces or runtime.clones):
                missing = (_ONLY_ZYGOTE,)
            missing = missing or self._refusals.get((name, key), ())
            if not missing:
                try:
                    return runtime, await self._launcher(runtime, shared, key)
                except IsolationError as error:
                    missing = self._refusals[name, key] = error.walls
            refused += missing
        raise refusal("no sandbox can be made on this host", refused)

    def explained(self, error: IsolationError, key: object, wanted: str | None) -> IsolationError:
        """Return why no sandbox could be made, if need be with why a better runtime was not used.

        Args:
            error: What the runtime at hand lacks.
            key: As given to ``find``.
            wanted: As given to ``find``.
        """
        others = [] if wanted else [self._refusals.get((name, key), ()) for name in RUNTIMES]
        walls = [wall for refused in others for wall in refused]
        return (
            refusal("no sandbox can be made on this host", [*walls, *error.walls])
            if walls
            else error
        )

    async def aclose(self) -> None:
        """End every launcher, and with it its sandboxes. Idempotent."""
        async with anyio.create_task_group() as group:
            for launcher in (*self._launchers.values(), *self._retired):
                group.start_soon(launcher.aclose)

    async def _end_retired(self) -> None:
        """End the launchers that were replaced and hold no sandbox any more."""
        for launcher in [each for each in self._retired if each.idle or not each.alive]:
            self._retired.remove(launcher)
            await launcher.aclose()

    async def _runtime(self, name: str) -> tuple[Runtime, tuple[Wall, ...]]:
        """Return a runtime and what it lacks here."""
        if name not in self._runtimes:
            runtime = RUNTIMES[name]()
            walls = await anyio.to_thread.run_sync(runtime.probe)
            self._runtimes[name] = runtime
            self._refusals[name] = tuple(wall for wall in walls if not wall.in_force)
        return self._runtimes[name], self._refusals[name]

    async def _launcher(self, runtime: Runtime, shared: TemplatePlan, key: object) -> Launcher:
        key = (runtime.name, key if runtime.clones else None)
        await self._end_retired()
        async with self._locks.setdefault(key, anyio.Lock(fast_acquire=True)):
            launcher = self._launchers.get(key)
            if launcher is not None and launcher.alive and launcher.launches < _MOST_LAUNCHES:
                return launcher.expect()
            if launcher is not None:
                self._retired.append(launcher)
            started = await Launcher.start(self._agent, runtime.boot(shared))
            self._launchers[key] = started
            return started.expect()


def refusal(what: str, walls: Sequence[Wall]) -> IsolationError:
    """Return the error that names each missing wall with its reason, and every fix once."""
    reasons = "; ".join(f"{wall.name}: {wall.detail}" for wall in walls)
    fixes = "; ".join(dict.fromkeys(wall.fix for wall in walls if wall.fix))
    return IsolationError(f"{what}: {reasons}. To mend it: {fixes}", walls=tuple(walls))
