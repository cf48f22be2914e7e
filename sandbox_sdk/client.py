"""The client: makes, finds, lists and deletes sandboxes."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

import anyio
from anyio.to_thread import run_sync

from sandbox_sdk.auth import AuthStatus, local_status
from sandbox_sdk.batch import AsyncBatch
from sandbox_sdk.config import Settings
from sandbox_sdk.errors import SandboxClosed
from sandbox_sdk.experiments.batches.choice import Choice
from sandbox_sdk.fresh import FreshSandboxes
from sandbox_sdk.orchestrator import AsyncSDKOrchestrator
from sandbox_sdk.parts import Parts
from sandbox_sdk.policies import policy
from sandbox_sdk.requirements import parse_packages, parse_preload
from sandbox_sdk.sandbox import AsyncSandbox
from sandbox_sdk.spec import parse_spec
from sandbox_sdk.values import Resources, SandboxInfo, TemplateInfo

if TYPE_CHECKING:
    from sandbox_sdk.experiments.batches.batches import Batches
    from sandbox_sdk.experiments.batches.preview import BatchPreview
    from sandbox_sdk.experiments.records.run_info import RunInfo
    from sandbox_sdk.experiments.results.run_result import RunResult


class AsyncSandboxClient:
    """The way in: makes sandboxes on this machine, and finds those made before.

    Needs no server, account or root. Use it with ``async with``, or call ``aclose()``; either
    ends every sandbox that was set up through it. With an ``endpoint`` sandboxes live on a server
    instead, and go on until ``cleanup()``, their ``timeout`` or their ``idle_timeout``.

    Args:
        auth_config: ``api_key``, ``client_id``, ``client_secret``; not needed on this machine.
        config: A ``config.yaml`` to read instead of those found, or a mapping shaped like one.
        endpoint: A server whose sandboxes to use instead of this machine's, as in
            ``unix:///run/sandbox-sdk/server.sock`` or ``https://HOST:PORT``.
        state_dir: Where records, workspaces and results are kept; by default the user's data
            folder.
        orchestrator: Settings of the section ``orchestrator``, for example
            ``{"monitoring_interval": 10}``.

    Raises:
        ConfigError: A setting is unknown or wrong; all faults at once, each with its path.
    """

    def __init__(
        self,
        auth_config: Mapping[str, object] | None = None,
        *,
        config: str | os.PathLike[str] | Mapping[str, object] | None = None,
        endpoint: str | None = None,
        state_dir: str | os.PathLike[str] | None = None,
        orchestrator: Mapping[str, object] | None = None,
    ) -> None:
        self._settings = Settings.load(
            auth_config,
            config=config,
            endpoint=endpoint,
            state_dir=state_dir,
            orchestrator=orchestrator,
        )
        self._opened: Parts | None = None
        self._opening = anyio.Lock(fast_acquire=True)  # guards _opened
        self._closed = False
        self._sandboxes: dict[str, AsyncSandbox] = {}

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __reduce__(self) -> str:
        raise TypeError("a client cannot be pickled: pass ids and settings, and create one there")

    async def create_sandbox(
        self,
        name: str,
        *,
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
    ) -> AsyncSandbox:
        """Record a new sandbox and return at once; it starts at ``setup()`` or first use.

        Args:
            name: Any printable text of 1 to 200 characters; need not be unique.
            resources: Limits, for example ``{"memory": "2GB", "cpu": 0.5}``. Keys: ``memory``,
                ``cpu``, ``pids``, ``disk``, ``disk_files``, ``tmp``, ``file_size``,
                ``open_files``, ``output``. Sizes are bytes, or text such as ``"512MiB"``. Without
                ``memory`` it gets what ``optimize(apply=True)`` chose for its template, if it did.
            timeout: Longest life once set up, in seconds; by default 3600.
            idle_timeout: Longest time without a call, in seconds; by default no bound.
            security_level: By default ``medium``.
            waive: Walls and limits that the level requires and that may be missing here, by name:
                at ``high`` ``landlock``, ``own_uid``, ``memory``, ``cpu``, ``pids`` and ``disk``.
                What is then missing stands in ``isolation.waived``.
            env: Environment variables of the code inside; nothing of the host's is passed on.
            files: Path in the workspace -> content, written before the first start.
            metadata: Your own words, kept with the record.
            template: Which Python world it sees: ``python`` is the interpreter and its standard
                library, ``host`` also this environment's packages, anything else is the name or
                key of a built template. By default ``host``; ``python`` at level ``high``.
            packages: Requirements such as ``["numpy==2.*"]``, or the path of a
                ``requirements.txt`` or ``pylock.toml``: a template with just these, built at the
                first ``setup()`` that asks for them.
            preload: Modules to import before it starts.
            network: ``none``, which is the default and all there is.
            runtime: ``zygote`` or ``bubblewrap``; by default the first of them that works here.
            seed: Makes ``random`` and ``numpy.random`` of Python code inside repeat, from 0 to
                2**32 - 1; by default every sandbox has randomness of its own.

        Raises:
            ConfigError: Something is wrong; all faults at once, and nothing was created.
            TemplateError: There is no template of that name or key.
            IsolationError: The security level is not offered by this version.
            StateError: The record could not be written.
            SandboxClosed: The client is closed.
        """
        parse = partial(
            parse_spec,
            name,
            settings=self._settings,
            resources=resources,
            timeout=timeout,
            idle_timeout=idle_timeout,
            security_level=security_level,
            waive=waive,
            env=env,
            files=files,
            metadata=metadata,
            template=template,
            packages=packages,
            preload=preload,
            network=network,
            runtime=runtime,
            seed=seed,
        )
        spec = await run_sync(parse) if isinstance(packages, str | os.PathLike) else parse()
        policy(spec.security_level)
        parts = await self._open()
        spec = await parts.backend.pin(spec)
        if resources is None or (isinstance(resources, Mapping) and "memory" not in resources):
            spec = parts.optimizer.tune(spec)
        if parts.backend is not parts.local:
            await parts.enforcer.refresh()
            parts.enforcer.create(spec)  # on this machine the backend itself asks
        return self._keep(await parts.backend.create(spec), parts)

    async def get_sandbox(self, id: str) -> AsyncSandbox:
        """Return the sandbox with this id, also one of another or an earlier process.

        While another live process holds it, its record, and results can be read; calls that need
        it running raise ``SandboxBusy``.

        Raises:
            SandboxNotFound: There is none.
        """
        parts = await self._open()
        if known := self._sandboxes.get(id):
            return known
        return self._keep(await parts.backend.get(id), parts)

    async def list_sandboxes(self) -> list[SandboxInfo]:
        """Return the records of all sandboxes in the state folder, oldest first."""
        parts = await self._open()
        return list(await parts.backend.list())

    async def delete_sandbox(self, id: str) -> None:
        """End a sandbox and remove its record, workspace and results for good.

        Raises:
            SandboxNotFound: There is none.
            SandboxBusy: Another live process holds it.
        """
        parts = await self._open()
        await parts.delete(id)
        if known := self._sandboxes.pop(id, None):
            known._forget()  # pyright: ignore[reportPrivateUsage] - part of the deletion

    async def run_batch(
        self,
        config: Mapping[str, object],
        *,
        run: str | None = None,
        reuse: str | None = None,
        retry_failed: bool = False,
        limit: int | None = None,
        sample_id: str | Iterable[str] | None = None,
    ) -> RunResult:
        """Run every condition with every sample, each attempt in a fresh sandbox, and record it.

        Called again with the same config it goes on where an earlier call ended, also one that was
        killed: trials that are done stay, and answers that were paid for are not bought again.

        Args:
            config: An experiment's fields, and ``dataset``, ``grid``, ``repeats``, ``sandbox``,
                ``scorers``, ``budget``, ``max_concurrency``, ``fail_on_error`` and
                ``admission_timeout``; see ``docs/batches.md``.
            run: ``new`` to start afresh, or the id of the run of this plan to go on with; by
                default the latest run of this plan, which is returned if it is finished.
            reuse: The id of a run whose trials are taken where all that decides them is equal.
            retry_failed: Take up trials that a model's provider or the infrastructure failed.
            limit: Only the first so many samples.
            sample_id: Only the samples of these ids.

        Raises:
            ConfigError: The config is wrong; all faults at once, before anything is done.
            ModelError: A model cannot be called, as far as is known before.
            TemplateError: There is no such template.
            SandboxBusy: Another live process drives the run.
            SandboxNotFound: There is no run of this id.
            AdmissionTimeout: Others held all places for sandboxes for too long.
            StateError: The run could not be opened. Once it is, what cannot be recorded makes the
                result ``degraded``.
        """
        choice = Choice.read(
            run=run, reuse=reuse, retry_failed=retry_failed, limit=limit, sample_id=sample_id
        )
        batch = await self._open_batch(config, choice)
        await batch._drive()  # pyright: ignore[reportPrivateUsage] - its other half
        return await batch.result()

    @asynccontextmanager
    async def start_batch(
        self,
        config: Mapping[str, object],
        *,
        run: str | None = None,
        reuse: str | None = None,
        retry_failed: bool = False,
        limit: int | None = None,
        sample_id: str | Iterable[str] | None = None,
    ) -> AsyncGenerator[AsyncBatch, None]:
        """Start a batch that runs beside the body of ``async with``, whose end waits for it.

        An exception that leaves the body cancels the trials under way; calling again takes them up.

        Args:
            config: As for ``run_batch()``.
            run: As for ``run_batch()``.
            reuse: As for ``run_batch()``.
            retry_failed: As for ``run_batch()``.
            limit: As for ``run_batch()``.
            sample_id: As for ``run_batch()``.

        Raises:
            SandboxError: As for ``run_batch()``.
        """
        choice = Choice.read(
            run=run, reuse=reuse, retry_failed=retry_failed, limit=limit, sample_id=sample_id
        )
        batch = await self._open_batch(config, choice)
        failure: Exception | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(batch._drive)  # pyright: ignore[reportPrivateUsage] - its other half
            try:
                yield batch
            except Exception as error:  # noqa: BLE001 - raised again below
                failure = error  # out of here it would be one of a group
                group.cancel_scope.cancel()
            else:
                await batch.resume()
        if failure is not None:
            raise failure

    async def plan_batch(
        self,
        config: Mapping[str, object],
        *,
        run: str | None = None,
        reuse: str | None = None,
        retry_failed: bool = False,
        limit: int | None = None,
        sample_id: str | Iterable[str] | None = None,
    ) -> BatchPreview:
        """Return what ``run_batch()`` with the same arguments would do, and do nothing.

        Args:
            config: As for ``run_batch()``.
            run: As for ``run_batch()``.
            reuse: As for ``run_batch()``.
            retry_failed: As for ``run_batch()``.
            limit: As for ``run_batch()``.
            sample_id: As for ``run_batch()``.

        Raises:
            SandboxError: As for ``run_batch()``.
        """
        choice = Choice.read(
            run=run, reuse=reuse, retry_failed=retry_failed, limit=limit, sample_id=sample_id
        )
        batches = await self._batches()
        return await batches.preview(await batches.plan(config, choice), choice)

    async def get_run(self, id: str) -> RunResult:
        """Return what a run gave so far, rebuilt from its journal.

        Raises:
            SandboxNotFound: There is none of this id.
            StateError: Its folder is damaged.
        """
        return await run_sync((await self._batches()).get, id)

    async def list_runs(self) -> list[RunInfo]:
        """Return all runs in the state folder, oldest first."""
        return await run_sync((await self._batches()).every)

    async def build_template(
        self,
        packages: Iterable[str] | str | os.PathLike[str],
        *,
        name: str | None = None,
        preload: Iterable[str] = (),
    ) -> TemplateInfo:
        """Build a template ahead, or return at once if it is there. Cancelling ends the build.

        Args:
            packages: Requirements, or the path of a file of them, as for ``create_sandbox()``.
            name: A name to ask for it by, ``create_sandbox(..., template=name)``. A name that
                another template had goes over to this one.
            preload: Modules that sandboxes asking for it by its name import before they start.

        Raises:
            ConfigError: A requirement, module or name is none; all faults at once.
            TemplateError: It cannot be built: no uv, no network, no such package, no wheel of
                it, a file that is not the one locked. The message says what to do.
            StateError: The state folder cannot be written, as when its disk is full.
        """
        requirements = await run_sync(parse_packages, packages)
        modules = parse_preload(preload)
        return await (await self._open()).templates.build(requirements, name=name, preload=modules)

    async def list_templates(self) -> list[TemplateInfo]:
        """Return all templates that were built, oldest first."""
        return list(await run_sync((await self._open()).templates.store.list))

    async def verify_template(self, template: str) -> TemplateInfo:
        """Read every file of a built template, by its name or key, and compare their digest.

        Raises:
            TemplateError: There is none, or it is not what was built.
        """
        return await run_sync((await self._open()).templates.store.verify, template)

    async def remove_template(self, template: str) -> TemplateInfo:
        """Remove a built template, by its name or key, for good; return what it was.

        Raises:
            TemplateError: There is none, or a client that is still open uses it.
        """
        return await run_sync((await self._open()).templates.store.remove, template)

    async def get_orchestrator(self) -> AsyncSDKOrchestrator:
        """Return the orchestrator of this client's sandboxes."""
        return (await self._open()).orchestrator

    async def validate_auth(self) -> AuthStatus:
        """Return who the caller is and what they may do; on this machine no credentials count.

        Raises:
            AuthenticationError: The server does not know the caller.
            ServerUnavailable: Nothing answered at the endpoint.
        """
        if self._settings.endpoint is None:
            return local_status(self._settings)
        return await (await self._open()).whoami()

    async def reap(self) -> list[str]:
        """Remove what dead processes left of their sandboxes; done at the client's first use too.

        Returns:
            The ids of those sandboxes, which are now ``lost``; their workspaces and results stay.
        """
        return list(await (await self._open()).local.reap())

    async def aclose(self) -> None:
        """End every sandbox set up through this client and give everything back. Idempotent."""
        self._closed = True
        async with self._opening:
            if self._opened is not None:
                with anyio.CancelScope(shield=True):
                    await self._opened.aclose()
                self._opened = None

    async def _batches(self) -> Batches:
        parts = await self._open()
        return parts.batches(FreshSandboxes(parts))

    async def _open_batch(self, config: Mapping[str, object], choice: Choice) -> AsyncBatch:
        batches = await self._batches()
        opened = await batches.open(await batches.plan(config, choice), choice)
        return AsyncBatch(opened.run, opened.result)

    def _keep(self, info: SandboxInfo, parts: Parts) -> AsyncSandbox:
        return self._sandboxes.setdefault(info.id, AsyncSandbox(info, parts))

    async def _open(self) -> Parts:
        if self._closed:
            raise SandboxClosed("the client is closed: create a new one")
        async with self._opening:
            if self._opened is None:
                self._opened = await Parts.open(self._settings)
            return self._opened
