# Generated from sandbox_sdk/orchestrator. Edit that, then run: nox -s generate -- --write
"""The orchestrator of a client: watches all its sandboxes, and tells how many there are and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sandbox_sdk.engine.scale_log import Scaled
from sandbox_sdk.orchestrator import AsyncSDKOrchestrator
from sandbox_sdk.orchestrator.enforce import Verdict
from sandbox_sdk.orchestrator.optimize import Suggestion
from sandbox_sdk.orchestrator.snapshot import HistoryPoint, ResourceSnapshot
from sandbox_sdk.rules import Rule
from sandbox_sdk_sync._twin import Twin


class SDKOrchestrator(Twin[AsyncSDKOrchestrator]):
    """Looks after all sandboxes of one client."""

    def monitor_resources(self) -> ResourceSnapshot:
        """Return what every running sandbox of this client uses now, read afresh.

        A figure that cannot be had is ``None`` in its entry, with the reason.
        """
        return self._call(self._core.monitor_resources)

    def watch(self, interval: float = 1.0) -> Iterator[ResourceSnapshot]:
        """Yield what every running sandbox uses, again and again, until the caller stops.

        Args:
            interval: Seconds from one look to the next; a look that takes longer than that is
                followed by the next at once.

        Raises:
            ConfigError: The interval is not above 0.
        """
        return self._portal.iterate(self._core.watch, interval)

    def history(self) -> list[HistoryPoint]:
        """Return one point for each ``monitoring_interval`` in which something ran, oldest first.

        A day's worth is kept, at one a minute, for as long as the client is open.
        """
        return self._call(self._core.history)

    def decisions(self) -> list[Scaled]:
        """Return the latest changes of how many sandboxes stand ready or may run, oldest first.

        Each has what it was, what it became, and why; 1,000 are kept.
        """
        return self._call(self._core.decisions)

    def optimize(self, *, apply: bool = False) -> list[Suggestion]:
        """Return what would fit better than what holds now, with the evidence and the saving.

        Evidence is kept in the state folder. Nothing is said of a template before five of its
        sandboxes have ended.

        Args:
            apply: Make the proposed memory the default of new sandboxes of its template that ask
                for none, in this and later clients. Batches keep the memory that their config or
                the settings say: no unfinished run is changed.
        """
        return self._call(self._core.optimize, apply=apply)

    def revert_optimizations(self, template: str | None = None) -> list[str]:
        """Take back what ``optimize(apply=True)`` made a default; return the templates.

        Args:
            template: Only of this one.

        Raises:
            ConfigError: Nothing was applied for that template.
        """
        return self._call(self._core.revert_optimizations, template)

    def policies(self) -> list[Rule]:
        """Return the operator's rules in force: the host's, the settings' and the arguments'.

        They add up: each narrows what sandboxes may be and do, and none lifts another.
        """
        return self._call(self._core.policies)

    def explain(self, spec: Mapping[str, object]) -> list[Verdict]:
        """Return what each rule that is about a sandbox would say of it; nothing is made.

        Args:
            spec: What ``create_sandbox`` would be called with, without a name if need be.

        Raises:
            ConfigError: The spec is wrong, all faults at once, or the rules cannot be read.
            TemplateError: There is no template of that name or key.
        """
        return self._call(self._core.explain, spec)

    def enforce(self) -> list[str]:
        """End now every sandbox of this client that a rule does not allow; return their ids.

        This is done once a second in any case. They end as ``infra`` with the limit
        ``policy:<rule>``: it is no fault of what ran in them.
        """
        return self._call(self._core.enforce)

    def metrics(self) -> str:
        """Return counts, times and gauges of this client in Prometheus's text format."""
        return self._call(self._core.metrics)
