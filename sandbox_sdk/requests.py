"""What callers pass to a sandbox, checked before anything of it is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sandbox_sdk.agent.frames import MAX_FRAME
from sandbox_sdk.errors import ConfigError
from sandbox_sdk.parse import parse_seconds

_SHELL = ("/bin/bash", "-c")
_LARGEST = MAX_FRAME // 8  # JSON may write one byte as six
_LONGEST_ARGUMENT = 128 * 1024 - 1  # the kernel's MAX_ARG_STRLEN, its NUL included


def command(
    command: str | Sequence[str], *, cwd: str | None, env: Mapping[str, str] | None
) -> dict[str, object]:
    """Return a command as the agent is asked for it.

    Raises:
        ConfigError: It is empty, holds a NUL, is no text, or is larger than the kernel takes.
    """
    argv = [*_SHELL, command] if isinstance(command, str) else list(command)
    if not argv:
        raise ConfigError("command: is empty; name a program to run")
    texts = [("command", text) for text in argv]
    texts += [] if cwd is None else [("cwd", cwd)]
    for name, value in (env or {}).items():
        texts += [("env", name), (f"env.{name}", value)]
        if isinstance(name, str) and (not name or "=" in name):
            raise ConfigError(f"env: {name!r} is no variable's name; it must not hold =")
    for path, text in texts:
        if not isinstance(text, str):
            raise ConfigError(f"{path}: expected text, got {type(text).__name__}")
        if "\0" in text:
            raise ConfigError(f"{path}: holds a NUL character, which no argument can")
        if len(text.encode("utf-8", "surrogatepass")) > _LONGEST_ARGUMENT:
            raise ConfigError(
                f"{path}: longer than the kernel's {_LONGEST_ARGUMENT} bytes for one argument; "
                "pass it by stdin= or write it to a file"
            )
    if sum(len(text) for _, text in texts) > _LARGEST:
        raise ConfigError(
            f"command: more than {_LARGEST} characters with its environment; write them to files"
        )
    return {"argv": argv, "cwd": cwd, "env": dict(env or {})}


def content(data: bytes | str | None) -> bytes:
    """Return standard input as bytes; text as UTF-8, nothing as no bytes."""
    if data is None:
        return b""
    return data.encode() if isinstance(data, str) else bytes(data)


def seconds(timeout: float | None) -> float | None:
    """Return a call's timeout.

    Raises:
        ConfigError: It is no finite number above 0.
    """
    return parse_seconds(timeout, "timeout")
