"""What the server did -> Prometheus. Workers answer with numbers to the one API process: its registry sees all."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import psutil
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.drift import Drift, Recent, drifts
from serve.gpu import gpus
from serve.jobs import Seen
from stages.release import Release
from stages.vision.detector import finger_count

PREFIX = "fingers"
ROUTES = ("/predict", "/blur", "/ws/predict")  # that answer pictures
FAILURES = (500, 503, 504)  # by our fault
LATENCY = (0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10)  # s
SHARES = tuple(round(n / 20, 2) for n in range(1, 21))
BRIGHTNESS = tuple(range(10, 256, 15))  # mean grey, 0 to 255
SHARPNESS = (5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120)  # variance of the Laplacian
SIDES = (64, 128, 192, 256, 320, 480, 640, 800, 1024, 1280, 1920, 2560, 4096, 8192)  # px


class Metrics:
    """Of the API process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "HTTP requests answered", "route", "code")
        self.errors = self._counter("errors", "requests and pictures that ended in an error", "route", "code")
        for route, code in product(ROUTES, FAILURES):  # at 0: a rate cannot see a counter's first step out of nowhere
            self.errors.labels(route, code)
        self.seconds = self._histogram("request_seconds", "time of a request", LATENCY, "route")
        self.parts = self._histogram("picture_seconds", "time of a picture's parts", LATENCY, "part")
        self.batch = self._histogram("batch_pictures", "pictures in a request", (1, 2, 4, 8, 16, 32, 64))
        self.pictures = self._counter("pictures", "pictures answered")
        self.faces = self._counter("faces_blurred", "faces found and hidden")
        self.with_faces = self._counter("pictures_with_faces", "pictures in which a face was hidden")
        self.hands = self._counter("hands", "hands seen, by class", "class_name")
        self.unknown = self._counter("unknown_hands", "hands whose fingers could not be told")
        self.counts = self._counter("finger_counts", "pictures by their finger count", "count")
        self.confidence = self._histogram("confidence", "confidence of the hands seen", SHARES)
        self.brightness = self._histogram("input_brightness", "mean grey of pictures, 0 to 255", BRIGHTNESS)
        self.sharpness = self._histogram("input_sharpness", "variance of the Laplacian of pictures", SHARPNESS)
        self.sides = self._histogram("input_side_px", "sides of pictures", SIDES, "side")
        self.frames_dropped = self._counter("frames_dropped", "WebSocket frames that a newer one replaced")
        self.recent: defaultdict[str, Recent] = defaultdict(Recent)  # by the sha256 of the model that answered
        self.clients = 0
        self.swaps = self._counter("model_swaps", "models put in place without a restart, by outcome", "outcome")
        for outcome in ("done", "failed"):
            self.swaps.labels(outcome)

    def saw(self, seen: Seen, waited: float, release: Release) -> None:
        """One picture that was answered with a count. waited: s.

        Counted as the release would, whatever threshold was asked for: the dashboard asks for all that may be a hand.
        """
        hands = [hand for hand in seen.hands if hand.confidence >= release.thresholds.confidence]
        parts = {"queue": waited, "decode": seen.decode, "faces": seen.hide, "detect": seen.detect}
        for part, seconds in parts.items():
            self.parts.labels(part).observe(seconds)
        self.hid(seen)
        count = finger_count(np.array([hand.class_id for hand in hands], np.int64), release.counts)
        self.counts.labels(str(count)).inc()
        for hand in hands:
            self.hands.labels(release.classes[hand.class_id]).inc()
            self.confidence.observe(hand.confidence)
            self.unknown.inc(release.counts[hand.class_id] is None)
        self.brightness.observe(seen.brightness)
        self.sharpness.observe(seen.sharpness)
        self.sides.labels("width").observe(seen.width)
        self.sides.labels("height").observe(seen.height)
        self.recent[release.sha256].add(seen, [hand.confidence for hand in hands], time.monotonic())

    def drifts(self, release: Release) -> list[Drift]:
        """Of what the release answered lately."""
        return drifts(self.recent[release.sha256].values(time.monotonic()), release.input_profile)

    def hid(self, seen: Seen) -> None:
        self.pictures.inc()
        self.faces.inc(seen.faces)
        self.with_faces.inc(seen.faces > 0)

    @contextmanager
    def client(self) -> Iterator[None]:
        """A WebSocket client, for as long as it is connected."""
        self.clients += 1
        try:
            yield
        finally:
            self.clients -= 1

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)

    def document(self) -> dict[str, list[dict[str, Any]]]:
        """The same samples as JSON: name -> [{labels, value}]."""
        samples: dict[str, list[dict[str, Any]]] = {}
        for family in self.registry.collect():
            for sample in family.samples:
                samples.setdefault(sample.name, []).append({"labels": sample.labels, "value": sample.value})
        return samples

    def answered(self, route: str, status: int, seconds: float) -> None:
        self.requests.labels(route, status).inc()
        self.seconds.labels(route).observe(seconds)
        if status >= 400:
            self.errors.labels(route, status).inc()

    def watch(self, now: "Callable[[], Now]") -> None:
        """now: what is true at the moment of a scrape."""
        self.registry.register(AtScrape(now))

    def _counter(self, name: str, words: str, *labels: str) -> Counter:
        return Counter(f"{PREFIX}_{name}", words, labels, registry=self.registry)

    def _histogram(self, name: str, words: str, buckets: Iterable[float], *labels: str) -> Histogram:
        return Histogram(f"{PREFIX}_{name}", words, labels, buckets=tuple(buckets), registry=self.registry)


class Measured:
    """The outermost layer around an app: counts and times what it answers, refusals of inner layers too."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, started = 499, time.perf_counter()  # nginx's: the client left before an answer

        async def noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", "other")  # not the path that was asked for: anybody may ask
            self._metrics.answered(route, status, time.perf_counter() - started)


@dataclass(frozen=True)
class Now:
    """What a scrape asks for: values that are read rather than counted."""

    version: str | None
    release: Release | None
    drifts: Sequence[Drift]
    under_way: int
    most: int  # that may be
    clients: int
    processes: Mapping[str, int]  # name -> pid
    blurring: bool
    ready: bool


class AtScrape(Collector):
    def __init__(self, now: Callable[[], Now]) -> None:
        self._now = now
        self._started = time.time()

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return []

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        now = self._now()
        yield gauge("start_time_seconds", "when the server started, since 1970", self._started)
        yield gauge("queue_pictures", "pictures that wait or are worked on", now.under_way)
        yield gauge("queue_limit_pictures", "how many may, before others are refused", now.most)
        yield gauge("websockets", "WebSocket clients connected", now.clients)
        yield gauge("preprocessing", "1: faces are hidden; 0: they are NOT", float(now.blurring))
        yield gauge("ready", "1: a model answers", float(now.ready))
        if now.release is not None and now.version is not None:
            yield from of_model(now.version, now.release)
        yield from of_drift(now.drifts)
        yield from of_processes(now.processes)
        yield from of_gpus()


def of_model(version: str, release: Release) -> Iterator[GaugeMetricFamily]:
    lineage = release.lineage
    info = gauge_family("model_info", "the model that answers by default", "name", "version", "sha256", "git")
    info.add_metric([release.name, version, release.sha256, lineage.git or ""], 1)
    yield info
    scores = gauge_family("model_test", "its scores on the test pictures", "metric")
    for name, value in release.metrics.model_dump(exclude={"classes"}).items():
        if value is not None:
            scores.add_metric([name], value)
    yield scores


def of_drift(drifts: Sequence[Drift]) -> Iterator[GaugeMetricFamily]:
    words = "recent median's distance from training's, signed; beyond 1 or -1: outside of nine in ten training pictures"
    scores = gauge_family("drift", words, "input")
    drifted = gauge_family("drifted", "1: so far, and in a direction that does harm: a surer model does none", "input")
    for drift in drifts:
        if drift.score is not None:
            scores.add_metric([drift.name], drift.score)
            drifted.add_metric([drift.name], float(drift.drifted))
    yield from (scores, drifted)


def of_processes(processes: Mapping[str, int]) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
    up = gauge_family("process_up", "1: the process lives", "process")
    pids = gauge_family("process_pid", "its number", "process")
    memory = gauge_family("process_memory_bytes", "resident memory", "process")
    cpu = CounterMetricFamily(f"{PREFIX}_process_cpu_seconds", "processor time used", labels=["process"])
    for name, pid in processes.items():
        try:
            process = psutil.Process(pid)
            used = process.cpu_times()
            memory.add_metric([name], process.memory_info().rss)
            cpu.add_metric([name], used.user + used.system)
            pids.add_metric([name], pid)
            up.add_metric([name], 1)
        except psutil.Error:
            up.add_metric([name], 0)
    yield from (up, pids, memory, cpu)


def of_gpus() -> Iterator[GaugeMetricFamily]:
    busy = gauge_family("gpu_busy", "share of the time in which it computed, for whomever", "gpu")
    memory = gauge_family("gpu_memory_bytes", "in use, by whomever", "gpu")
    for gpu in gpus():
        busy.add_metric([str(gpu.index)], gpu.busy)
        memory.add_metric([str(gpu.index)], gpu.memory)
    yield from (busy, memory)


def gauge(name: str, words: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}_{name}", words, value=value)


def gauge_family(name: str, words: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}_{name}", words, labels=labels)
