"""``Sandboxes`` without walls, and a bench that runs batches over them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import attrs
from plain_workplace import PlainWorkplace

from sandbox_sdk.errors import LaunchError
from sandbox_sdk.experiments.batches.batch_run import BatchRun
from sandbox_sdk.experiments.batches.batches import Batches
from sandbox_sdk.experiments.batches.choice import Choice
from sandbox_sdk.experiments.batches.concurrency import Concurrency
from sandbox_sdk.experiments.models.registry import ModelRegistry
from sandbox_sdk.experiments.records.seals import Seals
from sandbox_sdk.experiments.results.run_result import RunResult
from sandbox_sdk.policies import Admission, FixedAdmission
from sandbox_sdk.store.owner import Owner
from sandbox_sdk.values import SandboxSpec


class PlainSandboxes:
    """Makes plain folders; ``fails`` says how many of the next do not start."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made = 0
        self.open = 0
        self.most_open = 0
        self.fails = 0
        self.on_start: Callable[[PlainWorkplace], None] = lambda workplace: None

    async def prepare(self, options: Mapping[str, object], path: str = "sandbox") -> SandboxSpec:
        """Take any options."""
        return SandboxSpec(name="plain", metadata={key: str(options[key]) for key in options})

    @asynccontextmanager
    async def start(self, spec: SandboxSpec) -> AsyncGenerator[PlainWorkplace]:
        """Make a folder."""
        self.made += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        workplace = Failing(self.folder / str(self.made), fails=self.fails > 0)
        self.fails -= workplace.fails
        self.on_start(workplace)
        try:
            yield workplace
        finally:
            self.open -= 1

    @asynccontextmanager
    async def fresh(self, **options: object) -> AsyncGenerator[PlainWorkplace]:
        """Make a folder that holds the files."""
        files = cast("Mapping[str, str | bytes]", options.get("files", {}))
        async with self.start(await self.prepare({})) as workplace:
            await workplace.setup()
            for path, content in files.items():
                await workplace.files.write(path, content)
            yield workplace

    def of_run(self, run: str) -> PlainSandboxes:
        """Return itself."""
        return self

    async def clear(self) -> None:
        """Do nothing: nothing is recorded."""


class Failing(PlainWorkplace):
    """A folder that may not start."""

    def __init__(self, folder: Path, *, fails: bool) -> None:
        super().__init__(folder)
        self.fails = fails

    async def setup(self) -> None:
        """Make the folder, or fail."""
        if self.fails:
            raise LaunchError("the test says so", sandbox_id=self.id)
        await super().setup()


@attrs.define(eq=False)
class BatchBench:
    """Runs batches in a state folder of its own."""

    folder: Path
    models: ModelRegistry = attrs.field(factory=lambda: ModelRegistry(environ={}))
    admission: Admission = attrs.field(factory=lambda: FixedAdmission(4))
    seals: Seals = attrs.field(factory=Seals)
    sandboxes: PlainSandboxes = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.sandboxes = PlainSandboxes(self.folder / "work")

    @property
    def batches(self) -> Batches:
        """What runs them, each time as by another process."""
        return Batches(
            runs_dir=self.folder / "runs",
            owner=Owner.current(),
            models=self.models,
            sandboxes=self.sandboxes,
            admission=self.admission,
            concurrency=Concurrency(),
            seals=self.seals,
        )

    async def open(self, config: Mapping[str, Any], **choice: Any) -> BatchRun | RunResult:
        """Plan and open a batch."""
        chosen = Choice(**choice)
        batches = self.batches
        opened = await batches.open(await batches.plan(config, chosen), chosen)
        found = opened.run or opened.result
        assert found is not None
        return found

    async def run(self, config: Mapping[str, Any], **choice: Any) -> RunResult:
        """Run a batch to its end."""
        opened = await self.open(config, **choice)
        if isinstance(opened, RunResult):
            return opened
        await opened.drive()
        return opened.result()
