"""``run``: a batch from a YAML file, begun or gone on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import attrs
import click

from sandbox_sdk.batch import AsyncBatch
from sandbox_sdk.cli.progress import follow
from sandbox_sdk.cli.running import Session, global_options, run
from sandbox_sdk.config_file import read_file
from sandbox_sdk.experiments.batches.preview import BatchPreview
from sandbox_sdk.experiments.results.run_result import RunResult

_EXIT = {"complete": 0, "degraded": 3, "partial": 4}
_MOST_NAMED = 20


@click.command("run")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first so many samples.")
@click.option("--sample-id", "samples", multiple=True, help="Only this sample; may be repeated.")
@click.option("--retry-failed", is_flag=True, help="Take up what models or infrastructure failed.")
@click.option("--run", "run_id", help='"new", or the id of the run of this plan to go on with.')
@click.option("--reuse", help="The id of a run whose equal trials are taken.")
@click.option("--dry-run", is_flag=True, help="Only tell what would be done and what it costs.")
@global_options
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def run_(
    file: Path,
    limit: int | None,
    samples: tuple[str, ...],
    retry_failed: bool,
    run_id: str | None,
    reuse: str | None,
    dry_run: bool,
) -> None:
    """Run the batch that the YAML file FILE describes; again, to go on where it ended.

    The exit code is 0 for a complete run, 4 for one of which trials are left, and 3 for one of
    which something could not be recorded; its trials are named. A dataset's path is relative to
    FILE.
    """
    chosen: dict[str, Any] = {
        "limit": limit,
        "sample_id": samples or None,
        "retry_failed": retry_failed,
        "run": run_id,
        "reuse": reuse,
    }
    if dry_run:
        run(lambda session: _preview(session, file, chosen))
    run(lambda session: _run(session, file, chosen))


async def _run(session: Session, file: Path, chosen: dict[str, Any]) -> int:
    config = await anyio.to_thread.run_sync(_read, file)
    async with session.client() as client, client.start_batch(config, **chosen) as batch:
        session.output.note(f"run {batch.id}; Ctrl-C ends it, and the same command goes on")
        result = await _followed(session, batch)
    _tell(session, result)
    return _EXIT[result.status]


async def _followed(session: Session, batch: AsyncBatch) -> RunResult:
    async with anyio.create_task_group() as group:
        group.start_soon(follow, batch, session.output)
        await batch.wait()
        group.cancel_scope.cancel()
    return await batch.result()


async def _preview(session: Session, file: Path, chosen: dict[str, Any]) -> int:
    config = await anyio.to_thread.run_sync(_read, file)
    async with session.client() as client:
        told = await client.plan_batch(config, **chosen)
    cost = told.spend.cost
    document = attrs.asdict(told)
    document["spend"]["cost"] = None if cost is None else cost.to_json()
    session.output.document(document)
    for line in _plan_lines(told):
        session.output.line(line)
    return 0


def _plan_lines(told: BatchPreview) -> list[str]:
    begun = f"goes on with {told.run}" if told.run else "begins a run"
    taken = f"{told.reused:,} reused ({told.rescored:,} of them scored anew)"
    counts = f"{told.kept:,} kept, {taken}, {told.to_run:,} to run"
    lines = [f"{begun}: {told.planned:,} trials planned, {counts}"]
    lines += [f"  {label}: {count:,} to run" for label, count in told.by_condition.items()]
    spend = told.spend
    if spend.calls:
        cost = "unknown: a model has no price" if spend.cost is None else f"{spend.cost.total} USD"
        lines.append(
            f"about {spend.calls:,} model calls ({spend.most_calls:,} at most), "
            f"{spend.input_tokens:,} tokens in and at most {spend.output_tokens:,} out; cost {cost}"
        )
    return lines


def _tell(session: Session, result: RunResult) -> None:
    output = session.output
    output.document(to_document(result))
    for notice in result.notices:
        output.note(notice)
    for key in result.unrecorded[:_MOST_NAMED]:
        trial = result.trials[key]
        where = f"{trial.condition}, sample {trial.sample}, repeat {trial.repeat}"
        output.note(f"not recorded: trial {key} ({where})")
    if len(result.unrecorded) > _MOST_NAMED:
        output.note(f"not recorded: {len(result.unrecorded) - _MOST_NAMED:,} more")
    show(session, result)


def show(session: Session, result: RunResult) -> None:
    """Write what a run gave, for people."""
    output = session.output
    output.line(result.summary())
    if scores := result.scores:
        rows = [(each.condition, each.scorer, each.shown, each.told) for each in scores]
        output.table(("condition", "scorer", "mean [95 %]", "trials"), rows)
        output.line(result.rule)
    sealed = "sealed journal (runs show --export makes tables)"
    kept = "tables and journal" if result.key_id is None else sealed
    output.line(f"{kept}: {result.folder}")


def to_document(result: RunResult) -> dict[str, Any]:
    """Return what a run gave as one JSON document."""
    return {
        "run": result.id,
        "name": result.name,
        "status": result.status,
        "folder": str(result.folder),
        "planned": result.planned,
        "counted": result.counted,
        "kept": result.kept,
        "states": dict(result.states),
        "rule": result.rule,
        "scores": [attrs.asdict(each) for each in result.scores],
        "unrecorded": list(result.unrecorded),
        "possibly_billed": [attrs.asdict(call) for call in result.possibly_billed],
        "notices": list(result.notices),
    }


def _read(file: Path) -> dict[str, object]:
    """Return the batch in a file, its dataset's path made one from here."""
    config = dict(read_file(file))
    dataset = config.get("dataset")
    if isinstance(dataset, str) and not Path(dataset).is_absolute():
        config["dataset"] = str(file.parent / dataset)
    return config
