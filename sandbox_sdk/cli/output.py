"""Where a command writes: results to standard output, progress and verdicts to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager

import click

from sandbox_sdk.cli.text import clean


class Output:
    """The output of one command; every text but JSON is made harmless first.

    Args:
        as_json: Whether standard output gets one JSON document and nothing else.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def note(self, text: str) -> None:
        """Say something about what goes on."""
        click.echo(clean(text), err=True)

    def line(self, text: str = "") -> None:
        """Write a line for people."""
        if not self.as_json:
            click.echo(clean(text))

    def heading(self, text: str) -> None:
        """Write the title of what follows."""
        if not self.as_json:
            click.secho(f"\n{clean(text)}", bold=True)

    def block(self, text: str, *, language: str | None = None) -> None:
        """Write some lines of another's, indented; code in colours on a terminal."""
        shown = clean(text).rstrip("\n")
        if self.as_json:
            return
        if language and sys.stdout.isatty():
            from rich.console import Console
            from rich.padding import Padding
            from rich.syntax import Syntax

            code = Syntax(shown, language, theme="ansi_dark", background_color="default")
            Console().print(Padding(code, (0, 0, 0, 4), expand=False))
        else:
            for line in shown.split("\n"):
                click.echo(f"    {line}".rstrip())

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Write rows: a table on a terminal, else one line each, tabs between the cells."""
        if self.as_json:
            return
        cleaned = [[clean(cell) for cell in row] for row in rows]
        if not sys.stdout.isatty():
            for row in cleaned:
                click.echo("\t".join(cell.replace("\n", " ").replace("\t", " ") for cell in row))
            return
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in cleaned:
            table.add_row(*map(Text, row))  # as text: a cell's brackets are no markup
        Console().print(table)

    def document(self, value: object) -> None:
        """Write the JSON document, where JSON was asked for."""
        if self.as_json:
            click.echo(json.dumps(value, indent=2))

    @contextmanager
    def working(self, doing: str) -> Generator[Callable[[str], None]]:
        """Show that something takes time: a moving line on a terminal, else a line per step.

        The function it gives tells the next step, from any thread.
        """
        if not sys.stderr.isatty():
            self.note(f"{doing} ...")
            yield self.note
            return
        from rich.console import Console
        from rich.text import Text

        with Console(stderr=True).status(Text(clean(doing))) as status:
            yield lambda step: status.update(Text(clean(step)))
