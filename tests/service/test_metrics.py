from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from voiceprint_nb.contract import JOB_STATUSES
from voiceprint_nb.errors import MissingExtra
from voiceprint_nb.service.meter import Meter
from voiceprint_nb.service.metrics import PrometheusMeter


def figures(meter: PrometheusMeter) -> dict[tuple[str, ...], float]:
    """Every sample by its name and labels' values, as a scraper reads them."""
    body, content_type = meter.text()
    assert content_type.startswith("text/plain")
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_reports_become_figures() -> None:
    counter = PrometheusMeter(dict)
    meter: Meter = counter
    meter.job_ended("succeeded", engine_s=0.25)
    meter.job_ended("succeeded", engine_s=0.5)
    meter.job_ended("failed", engine_s=0.0)
    meter.webhook_attempted("http_timeout")
    meter.webhook_attempted("delivered")
    meter.webhook_given_up()
    meter.request_answered("/v1/jobs/{job_id}", 200, 0.02)
    meter.request_answered("/v1/jobs/{job_id}", 404, 0.02)
    meter.request_answered("unmatched", 404, 9.0)
    found = figures(counter)
    assert found["voiceprint_nb_jobs_ended_total", "succeeded"] == 2
    assert found["voiceprint_nb_jobs_ended_total", "failed"] == 1
    assert found["voiceprint_nb_engine_seconds_total",] == 0.75
    assert found["voiceprint_nb_webhook_attempts_total", "http_timeout"] == 1
    assert found["voiceprint_nb_webhook_attempts_total", "delivered"] == 1
    assert found["voiceprint_nb_webhooks_given_up_total",] == 1
    assert found["voiceprint_nb_requests_total", "/v1/jobs/{job_id}", "200"] == 1
    assert found["voiceprint_nb_requests_total", "/v1/jobs/{job_id}", "404"] == 1
    assert found["voiceprint_nb_request_seconds_count", "/v1/jobs/{job_id}"] == 2
    assert found["voiceprint_nb_request_seconds_sum", "unmatched"] == 9
    assert found["voiceprint_nb_request_seconds_bucket", "/v1/jobs/{job_id}", "0.025"] == 2


def test_stored_jobs_are_counted_when_the_figures_are_read() -> None:
    jobs: dict[str, int] = {}
    asked = []

    def count() -> Mapping[str, int]:
        asked.append(True)
        return jobs

    meter = PrometheusMeter(count)
    assert asked == []
    jobs |= {"created": 7, "failed": 2}
    found = figures(meter)
    assert {status: found["voiceprint_nb_jobs", status] for status in JOB_STATUSES} == {
        **dict.fromkeys(JOB_STATUSES, 0),
        "created": 7,
        "failed": 2,
    }
    assert found["voiceprint_nb_queue_jobs",] == 7
    del jobs["created"]
    assert figures(meter)["voiceprint_nb_queue_jobs",] == 0


def test_two_services_in_a_process_have_their_own_figures() -> None:
    one, other = PrometheusMeter(dict), PrometheusMeter(dict)
    one.job_ended("failed", engine_s=1.0)
    assert figures(other)["voiceprint_nb_engine_seconds_total",] == 0
    assert not any(family.name.startswith("voiceprint_nb") for family in REGISTRY.collect())


def test_the_package_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(MissingExtra, match=r"voiceprint_nb\[serve\]"):
        PrometheusMeter(dict)


def test_the_core_does_without_the_package() -> None:
    code = (
        "import sys, voiceprint_nb.service.desk, voiceprint_nb.service.app, voiceprint_nb.service.metrics\n"
        "sys.exit('prometheus_client' in sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)
