"""How any zygote comes to serve: it reads its plan, imports, tries one clone out, and serves.

A clone, once it is contained, comes back through all of this as ``Born`` and becomes the agent.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from sandbox_sdk.agent import contexts, proof
from sandbox_sdk.agent.boot import IGNORED, refuse
from sandbox_sdk.agent.cloned_child import Born
from sandbox_sdk.agent.launcher import Launcher

# Numeric libraries start a thread per core as they are imported, and a fork takes one along.
_ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def serve(
    control: int,
    plan: dict[str, Any],
    *,
    on_host: Callable[[], AbstractContextManager[None]],
    prepare: Callable[[], Callable[[socket.socket], Launcher]],
    become: Callable[[list[str]], None],
) -> None:
    """Import what the template asks for, then serve until the socket ends.

    Args:
        control: The descriptor of the launcher's socket.
        plan: The template's plan.
        on_host: Shows the host's files for a while.
        prepare: Tries a clone out and returns what makes the launcher; raises OSError where this
            host lets no clone be contained.
        become: What a clone does in the end, given the folders with packages.
    """
    try:
        if plan["trusted"] or plan["preload"]:
            contexts.make_importable(plan["site"])
        _preload(plan["preload"], on_host)
    except Exception as error:  # noqa: BLE001 - whatever a module raises as it is imported
        refuse(control, "preload", error)
    try:
        make = prepare()
    except OSError as error:
        refuse(control, "walls", error)
    with on_host():
        proof.rehearse()
    gc.collect()
    gc.freeze()  # clones then leave these objects, and their pages, alone
    gc.disable()
    try:
        make(socket.socket(fileno=control)).serve()
    except Born as born:
        alive = born.with_traceback(None)  # which would lead guest code to the zygote's names
    else:
        return
    alive.settle()
    for number in IGNORED:
        signal.signal(number, signal.SIG_DFL)
    become(plan["site"])
    os._exit(0)


def _preload(names: list[str], on_host: Callable[[], AbstractContextManager[None]]) -> None:
    """Import what every sandbox of the template shall find imported.

    Raises:
        RuntimeError: An import started a thread, which clones would lose.
    """
    if not names:
        return
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    for name in names:
        __import__(name)
    with on_host():
        threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        raise RuntimeError(f"importing {', '.join(names)} started threads, which no clone has")
    for name in _ONE_THREAD:
        del os.environ[name]
