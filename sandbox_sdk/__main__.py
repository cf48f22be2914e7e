"""``python -m sandbox_sdk`` is the command line."""

from sandbox_sdk.cli import main

main()
