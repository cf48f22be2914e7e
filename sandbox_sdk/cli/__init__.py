"""The command line, and the only place that prints."""

from sandbox_sdk.cli.app import main

__all__ = ["main"]
