"""Run a Python program in a user namespace of its own that allows LIMIT further ones.

Usage: ``python namespace_helper.py LIMIT USERS CODE``. Users keep their numbers, so that files stay
readable; run by root, the first USERS of them exist inside.
"""

from __future__ import annotations

import os
import sys

from sandbox_sdk.isolation.walls import kernel
from sandbox_sdk.isolation.walls.namespaces import CLONE_NEWUSER


def main(limit: str, users: str, code: str) -> int:
    """Run the program and return its exit code."""
    inside_ready, outside_ready = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        kernel.unshare(CLONE_NEWUSER)
        os.write(inside_ready[1], b".")
        os.read(outside_ready[0], 1)
        with open("/proc/sys/user/max_user_namespaces", "w") as file:
            file.write(limit)
        exec(compile(code, "<code>", "exec"), {})
        sys.stdout.flush()
        os._exit(0)
    os.read(inside_ready[0], 1)
    uid, gid = os.getuid(), os.getgid()
    maps = {"uid_map": f"0 0 {users}", "gid_map": f"0 0 {users}"}
    if uid:
        maps = {"setgroups": "deny", "uid_map": f"{uid} {uid} 1", "gid_map": f"{gid} {gid} 1"}
    for name, text in maps.items():
        with open(f"/proc/{pid}/{name}", "w") as file:
            file.write(text)
    os.write(outside_ready[1], b".")
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
