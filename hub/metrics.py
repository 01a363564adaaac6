"""What is counted, for Prometheus: one registry an app, no module-level state."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Metrics:
    """Counters of the shell, and gauges that ask the parts when they are read."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "shanmen_requests", "Requests by route, method and status",
            ["route", "method", "status"], registry=self.registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "shanmen_request_seconds", "Time from header to answer", ["route"],
            buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 30),
            registry=self.registry,
        )  # fmt: skip
        self.refusals = Counter(
            "shanmen_refusals", "Requests refused, by reason", ["reason"], registry=self.registry
        )
        self.bytes_in = Counter(
            "shanmen_body_bytes", "Bytes of request bodies read", registry=self.registry
        )
        self.enrolments = Counter(
            "shanmen_enrolments", "Enrolments by outcome", ["outcome"], registry=self.registry
        )

        self.segments = Gauge("shanmen_segments", "Segments accepted", registry=self.registry)
        self.records = Gauge("shanmen_records", "Records accepted", registry=self.registry)
        self.leaves = Gauge(
            "shanmen_ledger_leaves", "Leaves of the live ledger", ["generation"],
            registry=self.registry,
        )  # fmt: skip

    def ask(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """Add a gauge whose value is asked for when it is read."""
        Gauge(name, meaning, registry=self.registry).set_function(value)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)
