"""Figures for Prometheus, in a registry of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from voiceprint_nb.contract import CREATED, JOB_STATUSES
from voiceprint_nb.errors import MissingExtra

if TYPE_CHECKING:
    from prometheus_client.core import Metric


class PrometheusMeter:
    """A `Meter` whose figures Prometheus reads.

    Parameters
    ----------
    count_jobs : callable
        Jobs by status, asked for whenever the figures are read.

    Raises
    ------
    MissingExtra
        prometheus_client is not installed.

    Examples
    --------
    >>> meter = PrometheusMeter(lambda: {"created": 3})
    >>> meter.webhook_attempted("delivered")
    >>> b'voiceprint_nb_webhook_attempts_total{outcome="delivered"} 1.0' in meter.text()[0]
    True
    """

    def __init__(self, count_jobs: Callable[[], Mapping[str, int]]) -> None:
        try:
            from prometheus_client import CollectorRegistry, Counter, Histogram
        except ImportError as error:
            raise MissingExtra(
                "Figures need prometheus-client: pip install 'voiceprint_nb[serve]'."
            ) from error
        self._registry = own = CollectorRegistry()
        own.register(_Jobs(count_jobs))
        self._ended = Counter("voiceprint_nb_jobs_ended", "Jobs that ended.", ["status"], registry=own)
        self._engine_s = Counter("voiceprint_nb_engine_seconds", "Work of the engine.", registry=own)
        self._webhooks = Counter(
            "voiceprint_nb_webhook_attempts", "Attempts to send an event.", ["outcome"], registry=own
        )
        self._given_up = Counter(
            "voiceprint_nb_webhooks_given_up", "Events whose last attempt failed.", registry=own
        )
        self._requests = Counter(
            "voiceprint_nb_requests", "Answered requests.", ["operation", "status"], registry=own
        )
        self._request_s = Histogram(
            "voiceprint_nb_request_seconds", "Time to answer a request.", ["operation"], registry=own
        )

    def job_ended(self, status: str, *, engine_s: float) -> None:
        """Count a job and the work for it."""
        self._ended.labels(status).inc()
        self._engine_s.inc(engine_s)

    def webhook_attempted(self, outcome: str) -> None:
        """Count an attempt."""
        self._webhooks.labels(outcome).inc()

    def webhook_given_up(self) -> None:
        """Count an event that will never arrive."""
        self._given_up.inc()

    def request_answered(self, operation: str, status: int, duration_s: float) -> None:
        """Count a request and its time."""
        self._requests.labels(operation, str(status)).inc()
        self._request_s.labels(operation).observe(duration_s)

    def text(self) -> tuple[bytes, str]:
        """All figures as Prometheus reads them, and the content type of that."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return generate_latest(self._registry), CONTENT_TYPE_LATEST


class _Jobs:
    """Figures that the job table has anyway: they are right after a restart, too."""

    def __init__(self, count_jobs: Callable[[], Mapping[str, int]]) -> None:
        self._count_jobs = count_jobs

    def collect(self) -> Iterator[Metric]:
        """Ask the table."""
        from prometheus_client.core import GaugeMetricFamily

        counts = self._count_jobs()
        jobs = GaugeMetricFamily("voiceprint_nb_jobs", "Stored jobs.", labels=["status"])
        for status in JOB_STATUSES:
            jobs.add_metric([status], counts.get(status, 0))
        yield jobs
        yield GaugeMetricFamily("voiceprint_nb_queue_jobs", "Jobs that wait.", value=counts.get(CREATED, 0))

    def describe(self) -> list[Metric]:
        """Nothing, so that registering does not ask the table."""
        return []
