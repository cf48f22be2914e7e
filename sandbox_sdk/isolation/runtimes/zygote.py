"""The zygote runtime: sandboxes are clones of a Python process that stands in a template's tree.

What each clone does to contain itself is in ``agent/containment.py``, on one screen; at a level
without namespaces, in ``agent/confinement.py``.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from typing import Any

from sandbox_sdk.isolation.runtimes.base import Boot, LaunchPlan, TemplatePlan
from sandbox_sdk.values import Wall

OLDEST_KERNEL = (5, 12)
"""The oldest kernel that makes a mount and all below it read-only in one step."""


class Zygote:
    """Builds sandboxes by cloning, with no program but Python.

    Attributes:
        name: ``zygote``.
        clones: Its launcher is a zygote.
    """

    name = "zygote"
    clones = True

    def probe(self) -> tuple[Wall, ...]:
        """Find out whether the kernel is new enough; the zygote itself tries all else."""
        release = platform.release()
        numbers = re.match(r"(\d+)\.(\d+)", release)
        enough = numbers is not None and tuple(map(int, numbers.groups())) >= OLDEST_KERNEL
        fix = "" if enough else f"boot Linux {'.'.join(map(str, OLDEST_KERNEL))} or newer"
        return (Wall(name="zygote_kernel", in_force=enough, detail=f"Linux {release}", fix=fix),)

    def boot(self, plan: TemplatePlan) -> Boot:
        """Return what the zygote of a template is told."""
        view = plan.view
        if not plan.policy.namespaces:
            return Boot(
                task="plain",
                plan={
                    "readable": [str(mount.source) for mount in view.mounts],
                    "state": str(plan.state),
                    "site": list(view.site),
                    "preload": list(plan.preload),
                    "trusted": plan.trusted,
                    "seccomp": plan.seccomp.decode("latin-1"),
                    "trial_uid": plan.trial_uid,
                },
            )
        return Boot(
            task="template",
            plan={
                "base": str(plan.base),
                "mounts": [(str(mount.source), mount.target) for mount in view.mounts],
                "links": dict(view.links),
                "texts": dict(view.texts),
                "python": view.python,
                "agent": view.agent,
                "env": dict(view.env),
                "site": list(view.site),
                "preload": list(plan.preload),
                "trusted": plan.trusted,
                "seccomp": plan.seccomp.decode("latin-1"),
                "landlock": plan.policy.landlock,
                "trial_uid": plan.trial_uid,
            },
        )

    def launch(self, plan: LaunchPlan) -> Mapping[str, Any]:
        """Return what a clone is told besides what all sandboxes are."""
        if not plan.template.policy.namespaces:
            return {"tmp": str(plan.tmp)}
        in_memory = plan.template.policy.workspace == "tmpfs"
        return {
            "tmp_bytes": plan.tmp_bytes,
            "workspace_memory": {"bytes": plan.disk_bytes, "files": plan.disk_files}
            if in_memory
            else None,
        }
