"""The command line: one group of commands, each imported when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

import click

from sandbox_sdk.cli.running import global_options

COMMANDS: Mapping[str, str] = {
    "admin": "admin:admin",
    "audit": "audit:audit",
    "compare": "compare:compare",
    "delete": "sandboxes:delete",
    "demo": "demo:demo",
    "doctor": "doctor:doctor",
    "exec": "execute:execute",
    "export": "sandboxes:export",
    "keys": "keys:keys",
    "list": "sandboxes:list_",
    "login": "login:login",
    "logout": "login:logout",
    "models": "models:models",
    "policy": "policy:policy_",
    "run": "batches:run_",
    "runs": "runs:runs",
    "serve": "serve:serve",
    "server": "server:server",
    "template": "templates:template",
    "verify": "verify:verify",
}
"""Name -> the module of this package that has it, and its name there."""


class Commands(click.Group):
    """A group whose commands are imported on use: together they cost more than most of them do."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names, in the order in which help shows them."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; ``None`` if there is none of that name."""
        if (place := COMMANDS.get(cmd_name)) is None:
            return None
        module, _, name = place.partition(":")
        command: click.Command = getattr(import_module(f"sandbox_sdk.cli.{module}"), name)
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sandbox-sdk", prog_name="sandbox-sdk")
@global_options
def app() -> None:
    """Isolated sandboxes and tracked LLM experiments on this machine."""


def main() -> None:
    """Run the command line."""
    app(prog_name="sandbox-sdk")
