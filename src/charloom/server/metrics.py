"""What a server counts, for Prometheus."""

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
    """Counters of one server.

    Attributes:
        requests: by route and status.
        seconds: that requests took, by route.
        first_character_seconds: from a request's arrival to its first character.
        sending_seconds: from the first choice of a round of the engine's to the sending of its last.
        prompt_characters: that were read.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter("charloom_requests", "Requests answered.", ["route", "status"], registry=self._registry)
        self.seconds = Histogram(
            "charloom_request_seconds",
            "From a request's arrival to the end of its answer.",
            ["route"],
            buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60, 300),
            registry=self._registry,
        )
        self.first_character_seconds = Histogram(
            "charloom_first_character_seconds",
            "From a request's arrival to its first character.",
            buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
            registry=self._registry,
        )
        self.sending_seconds = Histogram(
            "charloom_sending_seconds",
            "From the first choice of a round to the sending of its last.",
            buckets=(0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.5),
            registry=self._registry,
        )
        self.prompt_characters = Counter(
            "charloom_prompt_characters", "Characters of prompts.", registry=self._registry
        )

    def count(self, route: str, status: int, seconds: float | None = None) -> None:
        """Counts a request; the seconds that it took, where it got as far as the application."""
        self.requests.labels(route, str(status)).inc()
        if seconds is not None:
            self.seconds.labels(route).observe(seconds)

    def observe(self, service: "Service") -> None:
        """Shows the state of `service`, too."""
        self._registry.register(_ServiceCollector(service))

    def text(self) -> bytes:
        """Returns all of it, as Prometheus reads it."""
        return generate_latest(self._registry)


class _ServiceCollector(Collector):
    """What is looked up when somebody asks."""

    def __init__(self, service: "Service") -> None:
        self._service = service
        self._begin = time.monotonic()

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        service, engine = self._service, self._service.engine
        yield GaugeMetricFamily("charloom_uptime_seconds", "Since the start.", time.monotonic() - self._begin)
        yield GaugeMetricFamily("charloom_active_texts", "Texts that are read or written now.", engine.active)
        yield GaugeMetricFamily("charloom_queued_texts", "Texts that wait.", engine.queued)
        yield GaugeMetricFamily("charloom_queued_scores", "Requests that wait to be scored.", service.scoring.count)
        yield GaugeMetricFamily(
            "charloom_answer_bytes", "That answers may take until they are sent.", service.answer_memory.used
        )
        yield CounterMetricFamily("charloom_characters", "Characters written.", engine.characters_written)
        yield CounterMetricFamily("charloom_reloads", "Models that were reloaded.", service.registry.reloads)
        caches = [model.prefix_cache for model in service.registry.models]
        yield CounterMetricFamily(
            "charloom_prefix_hits", "Prompts with a known beginning.", sum(p.hits for p in caches)
        )
        yield CounterMetricFamily("charloom_prefix_misses", "Prompts without one.", sum(p.misses for p in caches))
        yield GaugeMetricFamily("charloom_prefix_bytes", "That known beginnings take.", sum(p.size for p in caches))
