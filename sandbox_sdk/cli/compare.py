"""``compare``: what a change did to the scores of a run."""

from __future__ import annotations

import anyio.to_thread
import click

from sandbox_sdk.cli.running import Session, global_options, run
from sandbox_sdk.store.folders import StateFolders
from sandbox_sdk.vault import Vault


@click.command()
@global_options
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--scorer", help="Look at this scorer only; by default at all that both runs have.")
def compare(first: str, second: str, scorer: str | None) -> None:
    """Compare run B with run A, trial by trial.

    A and B are ids of runs, or RUN:CONDITION for one condition of a run. Every number is shown with
    its n, its 95 % interval and whom it leaves out; a difference with an exact paired test.
    """
    run(lambda session: _compare(session, first, second, scorer))


async def _compare(session: Session, first: str, second: str, scorer: str | None) -> int:
    # Imported on use: most commands need no experiments.
    from sandbox_sdk.experiments.records.run_folder import find_run
    from sandbox_sdk.experiments.records.run_record import read_run
    from sandbox_sdk.experiments.records.seals import Seals
    from sandbox_sdk.experiments.results.compare_runs import Side, compare_runs

    def work() -> None:
        folders = StateFolders.open(session.settings.state_dir)
        seals = Seals(Vault(folders.keys, lambda: session.settings.key_source))

        def read(named: str) -> Side:
            run_id, _, condition = named.partition(":")
            record = read_run(find_run(folders.runs, run_id), seals)
            return Side(record=record, condition=condition or None)

        found = compare_runs(read(first), read(second), scorer=scorer)
        session.output.document(found.to_json())
        session.output.line("\n\n".join(str(comparison) for comparison in found.comparisons))
        for text in found.warnings:
            session.output.note(f"warning: {text}")

    await anyio.to_thread.run_sync(work)
    return 0
