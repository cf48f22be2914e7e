"""Which run a caller of a batch means, and what of it is to be done."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import attrs

from sandbox_sdk.parse import Faults

NEW = "new"
"""As ``run``: start afresh, whatever there is."""


@attrs.frozen(kw_only=True)
class Choice:
    """Which run is meant, and what of it is done.

    Attributes:
        run: ``new``, the id of the run to go on with, or ``None`` to find it by its plan.
        reuse: The id of a run whose trials are taken where their keys are equal.
        retry_failed: Whether trials that a model's provider or infrastructure failed are taken up.
        limit: Only the first so many samples.
        samples: Only the samples of these ids.
    """

    run: str | None = None
    reuse: str | None = None
    retry_failed: bool = False
    limit: int | None = None
    samples: tuple[str, ...] = ()

    @classmethod
    def read(
        cls,
        *,
        run: object,
        reuse: object,
        retry_failed: object,
        limit: object,
        sample_id: object,
    ) -> Choice:
        """Return what a caller chose.

        Raises:
            ConfigError: It cannot be what it says; all faults at once.
        """
        faults = Faults()
        for name, value in (("run", run), ("reuse", reuse)):
            if value is not None and not isinstance(value, str):
                faults.add(name, "must be the id of a run" + ', or "new"' * (name == "run"))
        if not isinstance(retry_failed, bool):
            faults.add("retry_failed", "must be true or false")
        if limit is not None and (
            not isinstance(limit, int) or isinstance(limit, bool) or limit < 1
        ):
            faults.add("limit", "must be a whole number of at least 1")
        names: list[object] = []
        if isinstance(sample_id, str):
            names = [sample_id]
        elif isinstance(sample_id, Iterable):
            names = list(cast("Iterable[object]", sample_id))
        elif sample_id is not None:
            names = [sample_id]
        if not all(isinstance(name, str) for name in names):
            faults.add("sample_id", "must be the id of a sample, or several")
        faults.check()
        # Any: everything was looked at just now.
        checked: Any = {"run": run, "reuse": reuse, "limit": limit, "retry_failed": retry_failed}
        return cls(**checked, samples=tuple(map(str, names)))
