"""Guest programs: a command of any kind."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from sandbox_sdk.agent import guest, terminals


def program(
    request: dict[str, Any], settings: guest.Settings, streams: list[int]
) -> Callable[[], None]:
    """Return what the guest process of a command does.

    Args:
        request: ``argv``, and maybe ``cwd``, ``env`` and ``terminal``.
        settings: The sandbox's settings.
        streams: Descriptors for standard input, output and error; one alone is a terminal.
    """

    def run() -> None:
        try:
            on_terminal = "terminal" in request
            for target, descriptor in enumerate(streams * 3 if on_terminal else streams[:3]):
                os.dup2(descriptor, target)
            guest.become(settings, keep=[])
            for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them
                signal.signal(number, signal.SIG_DFL)
            if on_terminal:
                os.setsid()
                terminals.adopt(0)
            else:
                os.setpgid(0, 0)  # a session of its own would cost the kernel a scheduling group
            os.chdir(os.path.join(settings.workspace, settings.locate(request.get("cwd") or "")))
            own: dict[str, str] = request.get("env") or {}
            kind = {"TERM": terminals.KIND} if on_terminal else {}
            env = {**kind, **settings.env, **own}
            os.execvpe(request["argv"][0], request["argv"], env)  # noqa: S606
        except OSError as error:
            # The shell's own words: 126 found but cannot run, 127 not found.
            name = os.fsencode(error.filename or request["argv"][0])
            os.write(2, b"%s: %s\n" % (name, os.strerror(error.errno or 0).encode()))
            os._exit(127 if isinstance(error, FileNotFoundError) else 126)

    return run
