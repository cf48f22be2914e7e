"""A run that this process drives: its folder, lease, journal and ledger, opened together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from sandbox_sdk.experiments.batches.paid import PaidAnswers
from sandbox_sdk.experiments.batches.plan import Plan, PlannedTrial
from sandbox_sdk.experiments.records.events import Event
from sandbox_sdk.experiments.records.journal import JOURNAL, Journal, scan_events
from sandbox_sdk.experiments.records.journal_reader import JournalReader
from sandbox_sdk.experiments.records.ledger import Ledger
from sandbox_sdk.experiments.records.lock import Lock
from sandbox_sdk.experiments.records.payloads import PLAIN, Payloads
from sandbox_sdk.experiments.records.recorder import Recorder
from sandbox_sdk.experiments.records.redaction import Redactor
from sandbox_sdk.experiments.records.run_folder import create_run
from sandbox_sdk.experiments.records.run_lease import RunLease, take
from sandbox_sdk.experiments.records.run_record import scan
from sandbox_sdk.store.owner import Owner


class OpenRun:
    """One run while it is driven. Made with ``create()`` or ``resume()``; closed with ``aclose()``.

    Attributes:
        id: The run's id.
        folder: Its folder.
        plan: What is to be done.
        payloads: Keeps what it holds.
        journal: Its journal.
        ledger: How each trial stands, as far as it is on the disk.
        lock: What it is done with.
        created_at: When it began, in seconds since the epoch.
        kept: Trials that were done before it was opened.
    """

    def __init__(
        self,
        folder: Path,
        payloads: Payloads,
        plan: Plan,
        journal: Journal,
        ledger: Ledger,
        lease: RunLease,
        created_at: float,
        *,
        one_sandbox: bool,
    ) -> None:
        self.id = folder.name
        self.folder = folder
        self.payloads = payloads
        self.plan = plan
        self.journal = journal
        self.ledger = ledger
        self.created_at = created_at
        self.kept = ledger.done
        self.lock = Lock(
            folder,
            {ready.condition.label: ready.condition.config.model for ready in plan.ready},
            None if one_sandbox else plan.batch.to_json(),
            payloads,
        )
        self._lease = lease
        self._reader = JournalReader(folder / JOURNAL, payloads)
        self._library = set(ledger.stored)
        journal.on_durable = ledger.take

    @classmethod
    async def create(
        cls,
        runs_dir: Path,
        run: str,
        plan: Plan,
        redactor: Redactor,
        owner: Owner,
        *,
        sandbox_id: str | None = None,
        payloads: Payloads = PLAIN,
        mark: str = "",
    ) -> OpenRun:
        """Make a run's folder with its plan and open it.

        Args:
            runs_dir: Where the folder is made.
            run: The run's id.
            plan: What is to be done.
            redactor: Removes secrets from all that is written.
            owner: Who drives it.
            sandbox_id: The sandbox that all of it is done in, if it is one.
            payloads: Keeps what it holds.
            mark: What the plan is found by; by default its digest.

        Raises:
            StateError: It cannot be written.
        """
        folder = await anyio.to_thread.run_sync(
            create_run, runs_dir, run, plan, sandbox_id, redactor, payloads, mark
        )
        one = sandbox_id is not None
        return await cls._open(folder, payloads, plan, redactor, owner, one_sandbox=one)

    @classmethod
    async def resume(
        cls, folder: Path, payloads: Payloads, plan: Plan, redactor: Redactor, owner: Owner
    ) -> OpenRun:
        """Take a run that nobody drives, and note that it goes on.

        Args:
            folder: Its folder.
            payloads: Keeps what it holds, as it began.
            plan: What was to be done, worked out anew.
            redactor: Removes secrets from all that is written.
            owner: Who drives it now.

        Raises:
            SandboxBusy: A live process drives it.
            StateError: It cannot be read or written, or is damaged.
        """
        run = await cls._open(folder, payloads, plan, redactor, owner, one_sandbox=False)
        try:
            run.journal.append(
                "run.resumed",
                fence=run._lease.fence,
                kept=run.kept,
                settings=plan.batch.to_json(),
                drift=run.lock.drift,
            )
            await run.journal.commit()
        except BaseException:
            await run.aclose()
            raise
        return run

    @classmethod
    async def _open(
        cls,
        folder: Path,
        payloads: Payloads,
        plan: Plan,
        redactor: Redactor,
        owner: Owner,
        *,
        one_sandbox: bool,
    ) -> OpenRun:
        lease = await anyio.to_thread.run_sync(take, folder, owner)
        journal: Journal | None = None
        try:
            ledger = Ledger(plan.keys, plan.index)
            ledger, created = await anyio.to_thread.run_sync(scan, folder, ledger, payloads)
            ledger.close()  # what ran under an earlier driver ended with it
            journal = await Journal.open(
                folder / JOURNAL,
                folder.name,
                redactor,
                payloads=payloads,
                lease=lease,
                size=ledger.size,
                events=ledger.events,
            )
            run = cls(
                folder, payloads, plan, journal, ledger, lease, created, one_sandbox=one_sandbox
            )
            await run.lock.open()
        except BaseException:
            with anyio.CancelScope(shield=True):
                if journal is not None:
                    await journal.aclose()
                await anyio.to_thread.run_sync(lease.release)
            raise
        return run

    def recorder(self, trial: PlannedTrial, attempt: int) -> Recorder:
        """Return what notes the events of an attempt."""
        return Recorder(self.journal, trial.key, attempt, self._library)

    def past(self, trial: PlannedTrial) -> PaidAnswers | None:
        """Return the answers bought for a trial by attempts that are over, if there are any."""
        paid = self.ledger.unfinished(trial.index).paid
        return PaidAnswers(self.event_at, paid) if paid else None

    def event_at(self, start: int) -> Event:
        """Return the event whose line begins at a place of the journal. Reads the disk.

        Raises:
            IntegrityError: It was changed.
            StateError: There is none.
        """
        return self._reader.at(start)

    def events(self) -> Iterator[Event]:
        """Yield all that is in the journal by now. Reads the disk.

        Raises:
            IntegrityError: Something of it was changed.
            StateError: It cannot be read.
        """
        return (placed.event for placed in scan_events(self.folder / JOURNAL, self.payloads))

    async def note(self, type: str, **data: Any) -> Event:
        """Note an event about the run as a whole, durable on return.

        Raises:
            StateError: It cannot be written.
        """
        event = self.journal.append(type, **data)
        await self.journal.commit()
        return event

    def held(self) -> AbstractContextManager[None]:
        """Keep others from taking the run over while the context lasts, which blocks on the disk.

        Raises:
            SandboxBusy: Another process has taken it over.
        """
        return self._lease.held()

    async def aclose(self) -> None:
        """Make durable what is pending, and let others drive the run. Idempotent."""
        with anyio.CancelScope(shield=True):
            try:
                await self.journal.aclose()
            finally:
                await anyio.to_thread.run_sync(self._lease.release)
