"""How far a batch has come, on standard error: some moving lines on a terminal, else a line."""

from __future__ import annotations

import sys
from collections.abc import Callable

import anyio

from sandbox_sdk.batch import AsyncBatch
from sandbox_sdk.cli.output import Output
from sandbox_sdk.experiments.batches.progress import Pace, Progress

_DRAW_SECONDS, _TELL_SECONDS = 0.25, 5.0
_BAR = 30


async def follow(batch: AsyncBatch, output: Output) -> None:
    """Show how far a batch has come until the task is cancelled."""
    pace = Pace()
    if sys.stderr.isatty():
        await _draw(batch, pace)
        return
    while True:
        await anyio.sleep(_TELL_SECONDS)
        if (progress := batch.progress) is not None:
            output.note("  ".join(lines(progress, pace.seconds_left(progress))))


async def _draw(batch: AsyncBatch, pace: Pace) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(stderr=True)
    show: Callable[[Progress], Text] = lambda progress: Text(  # noqa: E731 - one expression
        "\n".join(lines(progress, pace.seconds_left(progress)))
    )
    with Live(console=console, transient=True, auto_refresh=False) as live:
        while (progress := batch.progress) is not None:
            live.update(show(progress), refresh=True)
            await anyio.sleep(_DRAW_SECONDS)


def lines(progress: Progress, seconds_left: float | None) -> list[str]:
    """Return what is said of a run: every number with its denominator, and what is left out."""
    planned = progress.planned
    full = _BAR * progress.done // planned if planned else 0
    rest = "ETA unknown" if seconds_left is None else f"ETA {_duration(seconds_left)}"
    bar = "#" * full + "." * (_BAR - full)
    done = f"{progress.done:,}/{planned:,} done ({progress.kept:,} kept)"
    told = [f"trials {bar} {done}, {progress.running:,} running, {rest}"]
    ended = sum(progress.states.values())
    listed = ", ".join(f"{state} {count:,}" for state, count in sorted(progress.states.items()))
    told.append(
        f"ended  {listed or 'none yet'}; {progress.counted:,} of {ended:,} count,"
        f" {ended - progress.counted:,} excluded"
    )
    if progress.tokens or progress.replayed:
        told.append(f"model  {progress.tokens:,} tokens bought, {progress.replayed:,} replayed")
    told += [f"budget {line}" for line in progress.budget.lines if line.limit is not None]
    return told


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{rest:02}s" if minutes else f"{rest}s"
