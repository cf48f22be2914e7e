"""``python -m sandbox_sdk`` is the command line."""

from sandbox_sdk.cli import main

if __name__ == "__main__":
    main()
