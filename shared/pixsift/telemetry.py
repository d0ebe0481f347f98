"""Structured logs and metrics: Powertools Logger (JSON) and Metrics (CloudWatch EMF) on stdout.

Every metric is declared in ``METRICS`` and described in docs/metrics.md; a test compares them.
Dimensions are few on purpose (service and stage): a metric per robot would cost more than it is
worth.
"""

import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Literal

from aws_lambda_powertools import Logger, Metrics

Unit = Literal["Count", "Seconds", "Bytes", "Percent"]
NAMESPACE = "pixsift"
_MAX_VALUES = 99
"""Values per metric in one EMF document. The specification allows a hundred, but at a hundred
Powertools writes by itself and then warns about an empty flush."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: name, unit, and its description in docs/metrics.md."""

    name: str
    unit: Unit
    tells: str


METRICS = {
    metric.name: metric
    for metric in (
        Metric("received", "Count", "messages received from the queue"),
        Metric("received_again", "Count", "received messages with a receive count above 1"),
        Metric(
            "messages_split",
            "Count",
            "messages with several objects, split into one message per object",
        ),
        Metric(
            "redelivered", "Count", "object versions received again after their outcome was stored"
        ),
        Metric("anomalies", "Count", "messages or records that are not S3 object events"),
        Metric("ignored", "Count", "objects excluded by the source rules of all collections"),
        Metric("outcome_kept", "Count", "decisions: kept"),
        Metric("outcome_duplicate", "Count", "decisions: duplicate"),
        Metric("outcome_rejected", "Count", "decisions: rejected"),
        Metric("outcome_gone", "Count", "decisions: gone"),
        Metric("outcome_failed", "Count", "decisions: failed; alarm on any"),
        Metric(
            "duplicates_ratio",
            "Percent",
            "share of duplicates in a commit, of kept and duplicate images",
        ),
        Metric("released", "Count", "messages returned to the queue to be retried"),
        Metric(
            "wanted_elsewhere",
            "Count",
            "messages returned to the queue because another embedding space wants them",
        ),
        Metric(
            "embedded_ahead",
            "Count",
            "arrivals embedded for a collection that is being built in this embedding space",
        ),
        Metric("access_denied", "Count", "objects that S3 denied access to; alarm on any"),
        Metric("dependency_down", "Count", "times receiving stopped because a dependency failed"),
        Metric("queue_age_seconds", "Seconds", "time from sending a message to its outcome"),
        Metric("fetch_seconds", "Seconds", "time to fetch one object from S3"),
        Metric("fetched_bytes", "Bytes", "size of one object fetched from S3"),
        Metric("decode_seconds", "Seconds", "time to decode one batch"),
        Metric("embed_seconds", "Seconds", "time to embed one batch"),
        Metric("embed_batch", "Count", "images per batch of the model"),
        Metric(
            "embeddings_reused", "Count", "images with a stored embedding: the model was not run"
        ),
        Metric("commit_seconds", "Seconds", "time for one decision transaction and its search"),
        Metric("commit_batch", "Count", "object versions per decision transaction"),
        Metric("thumbnail_failures", "Count", "thumbnails that failed to be written"),
        Metric("backlog", "Count", "approximate number of messages waiting in the queue"),
        Metric("in_flight", "Count", "object versions in this consumer"),
        Metric("requests_refused", "Count", "snapshot requests that were refused"),
        Metric("snapshots_published", "Count", "snapshots published by this curator"),
        Metric("snapshots_failed", "Count", "snapshots that failed permanently; alarm on any"),
        Metric("resolve_seconds", "Seconds", "time to select the images of one request"),
        Metric("export_seconds", "Seconds", "time for one attempt to copy and publish a snapshot"),
        Metric("events_not_sent", "Count", "events that EventBridge did not accept"),
        Metric("watch_hits_announced", "Count", "hits of watches that were sent to the event bus"),
    )
}


class Telemetry:
    """Metrics of one process, gathered from any thread and written by ``flush``."""

    def __init__(self, service: str, *, stage: str = "") -> None:
        """stage: the deployment, used as a second dimension if given."""
        self._metrics = Metrics(namespace=NAMESPACE, service=service)
        if stage:
            self._metrics.set_default_dimensions(stage=stage)
        self._lock = threading.Lock()
        self._counts: dict[str, float] = defaultdict(float)
        self._values: dict[str, list[float]] = defaultdict(list)

    def count(self, name: str, amount: float = 1) -> None:
        """Add to a counter; its sum is written once per flush. KeyError for an unknown name."""
        _declared(name)
        if amount:
            with self._lock:
                self._counts[name] += amount

    def observe(self, name: str, value: float) -> None:
        """Record one value of a distribution; beyond 99 per flush the newest stay."""
        _declared(name)
        with self._lock:
            values = self._values[name]
            values.append(value)
            del values[:-_MAX_VALUES]

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Observe the seconds that the body took, however it ends."""
        started = perf_counter()
        try:
            yield
        finally:
            self.observe(name, perf_counter() - started)

    def total(self, name: str) -> float:
        """The sum of a counter since the last flush (tests, and the log line of a batch)."""
        with self._lock:
            return self._counts.get(name, 0)

    def flush(self) -> None:
        """Write everything gathered as one EMF document; nothing gathered, nothing written.

        Never raises: figures that cannot be written (a full log disk, a log reader that went away)
        are lost, and nothing else.
        """
        with suppress(Exception):
            self._flush()

    def _flush(self) -> None:
        with self._lock:
            counts, self._counts = self._counts, defaultdict(float)
            values, self._values = self._values, defaultdict(list)
            for name, amount in counts.items():
                self._metrics.add_metric(name=name, unit=METRICS[name].unit, value=amount)
            for name, several in values.items():
                for value in several:
                    self._metrics.add_metric(name=name, unit=METRICS[name].unit, value=value)
            if counts or values:
                self._metrics.flush_metrics()


def make_logger(service: str, level: str = "INFO") -> Logger:
    """A logger that writes one JSON object per line to stdout."""
    return Logger(
        service=service, level=level.upper(), use_rfc3339=True, json_serializer=_ascii_json
    )


def _ascii_json(facts: Any) -> str:
    """Names come from outside, and a log is read on a terminal: nothing but ASCII, in one line."""
    return json.dumps(facts, default=str, separators=(",", ":"))


def metrics_page() -> str:
    """docs/metrics.md, written from ``METRICS``."""
    rows = "\n".join(f"| `{m.name}` | {m.unit} | {m.tells} |" for m in METRICS.values())
    return (
        "# Metrics\n\n"
        "CloudWatch EMF on stdout, namespace `pixsift`, dimensions `service` and, where\n"
        "`PIXSIFT_STAGE` is set, `stage`. Generated from `METRICS` in\n"
        "`shared/pixsift/telemetry.py`; a test compares them.\n\n"
        f"| metric | unit | meaning |\n| --- | --- | --- |\n{rows}\n"
    )


def _declared(name: str) -> None:
    if name not in METRICS:
        raise KeyError(f"metric {name!r} is not declared in pixsift.telemetry.METRICS")
