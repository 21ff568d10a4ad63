"""The server's metrics for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from sparing.server.runs import LiveRun
from sparing.server.scheduler import Scheduler

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """Counters, updated at the end of each run, and gauges, read on request."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.registry = registry = CollectorRegistry()
        self._runs = Counter(
            "sparing_requests", "Requests by outcome", ["outcome"], registry=registry
        )
        self._refused = Counter(
            "sparing_refused", "Error answers by status", ["status"], registry=registry
        )
        self._tokens = Counter("sparing_tokens", "Tokens by kind", ["kind"], registry=registry)
        self._drafts = Counter("sparing_drafted_tokens", "Drafted tokens", registry=registry)
        self._accepted = Counter(
            "sparing_accepted_tokens", "Accepted drafted tokens", registry=registry
        )
        self._evicted = Counter("sparing_evicted_tokens", "Evicted tokens", registry=registry)
        self._first = Histogram(
            "sparing_first_token_seconds",
            "Seconds from a request's arrival to its first token",
            buckets=SECONDS,
            registry=registry,
        )
        self._whole = Histogram(
            "sparing_request_seconds",
            "Seconds from a request's arrival to its end",
            buckets=SECONDS,
            registry=registry,
        )
        gauges = {
            "sparing_live_rows": ("Rows in decoding", lambda: scheduler.live),
            "sparing_waiting_rows": ("Rows in the queue", lambda: scheduler.waiting),
            "sparing_kv_bytes": ("Bytes of keys and values", lambda: scheduler.kv_bytes),
            "sparing_kv_bytes_limit": (
                "Limit of bytes of keys and values",
                lambda: scheduler.room.kv_bytes,
            ),
            "sparing_steps": ("Decoding steps", lambda: scheduler.steps),
            "sparing_step_seconds": ("Seconds in decoding steps", lambda: scheduler.step_seconds),
        }
        for name, (what, read) in gauges.items():
            Gauge(name, what, registry=registry).set_function(read)

    def ended(self, run: LiveRun, seconds: float) -> None:
        """Count a run at its end."""
        interrupted = any(c.done and c.done.finish_reason == "interrupted" for c in run.choices)
        outcome = "failed" if run.failure else "cancelled" if interrupted else "finished"
        self._runs.labels(outcome).inc()
        self._whole.observe(seconds)
        if run.first_token_s is not None:
            self._first.observe(run.first_token_s)
        for choice in run.choices:
            stats = choice.stats
            self._tokens.labels("prompt").inc(len(choice.request.prompt.ids))
            self._tokens.labels("thought").inc(stats.thinking_tokens)
            self._tokens.labels("answer").inc(stats.new_tokens - stats.thinking_tokens)
            self._drafts.inc(stats.drafted)
            self._accepted.inc(stats.accepted)
            self._evicted.inc(stats.evicted_tokens)

    def refused(self, status: int) -> None:
        self._refused.labels(str(status)).inc()

    def text(self) -> bytes:
        """All metrics in Prometheus' format."""
        return generate_latest(self.registry)
