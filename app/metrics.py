"""Every metric of the service, declared once. Names carry units; label values come from small sets only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

if TYPE_CHECKING:
    from app.engine.engine import Engine
    from app.engine.lanes import Step

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)

REQUESTS = Counter("tongues_requests_total", "Requests answered.", ["route", "method", "status"])
REQUEST_SECONDS = Histogram("tongues_request_seconds", "From first byte to last.", ["route"], buckets=_SECONDS)
REQUESTS_RUNNING = Gauge("tongues_requests_running", "Requests being answered.")
STAGE_SECONDS = Histogram(
    "tongues_stage_seconds", "Time of one stage of a request's life.", ["stage"], buckets=_SECONDS
)
ERRORS = Counter("tongues_errors_total", "Errors told to clients, by code.", ["code"])
UPLOAD_BYTES = Counter(
    "tongues_upload_bytes_total", "Bytes of bodies received: recordings, and adapters that are published."
)
AUDIO_SECONDS = Counter("tongues_audio_seconds_total", "Audio transcribed.", ["language"])
DECODERS_LOST = Counter("tongues_decoders_lost_total", "Processes that decode audio and ended unasked.")
TRUNCATED = Counter("tongues_truncated_total", "Recordings that broke off or lost parts.")

READY = Gauge("tongues_ready", "1 once the model is warm.")
PERMITS_TAKEN = Gauge("tongues_permits_taken", "Requests that the engine has admitted.")
QUEUE_WINDOWS = Gauge("tongues_queue_windows", "Windows waiting for a batch.")
BATCH_ROWS = Histogram(
    "tongues_batch_rows", "Rows of a batch: a window in one adapter each.", buckets=(1, 2, 4, 8, 16, 32, 64, 128)
)
BATCH_ADAPTERS = Histogram("tongues_batch_adapters", "Distinct adapters in a batch.", buckets=(1, 2, 4, 8, 16, 32, 64))
BATCH_PADDING = Histogram(
    "tongues_batch_padding_ratio", "Padded frames over all frames.", buckets=(0.05, 0.1, 0.2, 0.3, 0.5, 0.75)
)
FORWARD_SECONDS = Histogram(
    "tongues_forward_seconds", "One forward of the backbone, or a part of one.", buckets=_SECONDS
)
QUEUE_SECONDS = Histogram("tongues_queue_seconds", "A window's wait for its batch.", buckets=_SECONDS)
ADAPTERS = Gauge("tongues_adapters", "Adapters registered, refused, and on the device.", ["state"])


def record_step(step: Step) -> None:
    """One forward: its size, mixture, padding and times."""
    jobs = step.batch.jobs
    BATCH_ROWS.observe(step.batch.rows)
    BATCH_ADAPTERS.observe(len(step.batch.worn))
    BATCH_PADDING.observe(1 - sum(job.frames * job.rows for job in jobs) / step.frames)
    FORWARD_SECONDS.observe(step.seconds)
    for job in jobs:
        QUEUE_SECONDS.observe(job.times_s["batched"] - job.times_s["queued"])


def record_engine(engine: Engine) -> None:
    """What holds at this moment."""
    snapshot = engine.registry.snapshot
    PERMITS_TAKEN.set(engine.requests)
    QUEUE_WINDOWS.set(engine.queued)
    ADAPTERS.labels("registered").set(len(snapshot.adapters))
    ADAPTERS.labels("refused").set(len(snapshot.refused))
    ADAPTERS.labels("device").set(engine.residency.seats)
