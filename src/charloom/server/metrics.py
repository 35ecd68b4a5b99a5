"""The metrics of a server, for Prometheus."""

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from charloom.server.service import Service

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The metrics of one server.

    Attributes:
        requests: number of requests, by route and status.
        seconds: durations of requests, by route.
        first_character_seconds: seconds from a request's arrival to its first character.
        sending_seconds: seconds from the first sampled token of a round until its last chunk is sent.
        prompt_characters: number of prompt characters.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter("charloom_requests", "Requests answered.", ["route", "status"], registry=self._registry)
        self.seconds = Histogram(
            "charloom_request_seconds",
            "Seconds from a request's arrival to the end of its response.",
            ["route"],
            buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60, 300),
            registry=self._registry,
        )
        self.first_character_seconds = Histogram(
            "charloom_first_character_seconds",
            "Seconds from a request's arrival to its first character.",
            buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
            registry=self._registry,
        )
        self.sending_seconds = Histogram(
            "charloom_sending_seconds",
            "Seconds from the first sampled token of a round until its last chunk is sent.",
            buckets=(0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.5),
            registry=self._registry,
        )
        self.prompt_characters = Counter(
            "charloom_prompt_characters", "Characters of prompts.", registry=self._registry
        )

    def count(self, route: str, status: int, seconds: float | None = None) -> None:
        """Counts a request, and its duration if it reached the application."""
        self.requests.labels(route, str(status)).inc()
        if seconds is not None:
            self.seconds.labels(route).observe(seconds)

    def observe(self, service: "Service") -> None:
        """Adds metrics of the state of `service`."""
        self._registry.register(_ServiceCollector(service))

    def text(self) -> bytes:
        """Returns all metrics in Prometheus's text format."""
        return generate_latest(self._registry)


class _ServiceCollector(Collector):
    """Metrics that are read from a service when they are requested."""

    def __init__(self, service: "Service") -> None:
        self._service = service
        self._begin = time.monotonic()

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        service, engine = self._service, self._service.engine
        yield GaugeMetricFamily("charloom_uptime_seconds", "Seconds since the start.", time.monotonic() - self._begin)
        yield GaugeMetricFamily("charloom_active_texts", "Texts in progress.", engine.active)
        yield GaugeMetricFamily("charloom_queued_texts", "Texts that wait to be started.", engine.queued)
        yield GaugeMetricFamily("charloom_queued_scores", "Requests that wait to be scored.", service.scoring.count)
        yield GaugeMetricFamily(
            "charloom_answer_bytes", "Memory reserved for responses, in bytes.", service.answer_memory.used
        )
        yield CounterMetricFamily("charloom_characters", "Characters generated.", engine.characters_generated)
        yield CounterMetricFamily("charloom_reloads", "Models that were reloaded.", service.registry.reloads)
        caches = [model.prefix_cache for model in service.registry.models]
        yield CounterMetricFamily(
            "charloom_prefix_hits", "Prompts that began with a cached prefix.", sum(p.hits for p in caches)
        )
        yield CounterMetricFamily(
            "charloom_prefix_misses", "Prompts that did not begin with a cached prefix.", sum(p.misses for p in caches)
        )
        yield GaugeMetricFamily(
            "charloom_prefix_bytes", "Size of the prefix caches, in bytes.", sum(p.size for p in caches)
        )
