"""Count and time what a service does, for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
_IMAGES = (1, 2, 4, 8, 16, 32, 64)

MEDIA_TYPE = CONTENT_TYPE_LATEST


class Measures:
    """Hold the counters of one service."""

    def __init__(self, queued: Callable[[], float]) -> None:
        """Begin at zero; `queued` says how many images are accepted and not answered."""
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "anomalens_requests_total", "Requests.", ("method", "route", "status"), registry=self._registry
        )
        self._latency = Histogram(
            "anomalens_request_seconds",
            "Time from a request to its answer.",
            ("method", "route"),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._batches = Histogram(
            "anomalens_batch_images", "Images or tiles of a batch.", buckets=_IMAGES, registry=self._registry
        )
        self._answers = Counter(
            "anomalens_inspections_total", "Inspections answered.", ("recipe", "label"), registry=self._registry
        )
        self._refused = Counter("anomalens_refused_total", "Requests refused by a full queue.", registry=self._registry)
        queue = Gauge("anomalens_queue_images", "Images accepted and not answered yet.", registry=self._registry)
        queue.set_function(queued)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request; `route` is the pattern of its address."""
        self._requests.labels(method, route, str(status)).inc()
        self._latency.labels(method, route).observe(seconds)
        if status == 503:
            self._refused.inc()

    def batch(self, images: int) -> None:
        """Count a batch."""
        self._batches.observe(images)

    def answer(self, label: str, recipe: str | None) -> None:
        """Count an answer: a label, or "failed"."""
        self._answers.labels(recipe or "", label).inc()

    def text(self) -> bytes:
        """Return everything in the format of Prometheus."""
        return generate_latest(self._registry)
