"""A picture's bytes -> an answer, by way of a worker: what all routes share, in the API process."""

import base64
import time
from dataclasses import dataclass

import numpy as np

from serve.dispatch import Dispatch
from serve.jobs import Job, Render, Seen
from serve.logs import request_id
from serve.metrics import Metrics
from serve.models import Loaded, Served
from serve.problems import Problem
from serve.schema import Answer, Health, Prediction, Size, Timing
from serve.settings import Settings
from stages.vision.detector import finger_count


@dataclass(frozen=True)
class Question:
    """What a request asks of each of its pictures."""

    confidence: float | None = None
    iou: float | None = None
    render: Render = "none"


@dataclass(frozen=True)
class Service:
    """All that the routes share, in the API process."""

    settings: Settings
    loaded: Loaded
    dispatch: Dispatch
    metrics: Metrics

    async def count(
        self, content: bytes | Problem, served: Served, question: Question, since: float
    ) -> tuple[Answer, Seen]:
        """since: when the request had arrived, by perf_counter. Raises Problem."""
        if isinstance(content, Problem):
            raise content
        job = Job(content, served.version, question.confidence, question.iou, question.render, request_id())
        seen, waited = await self._outcome(job)
        answer = answered(seen, served, since)
        self.metrics.saw(seen, waited, served.release)
        return answer, seen

    async def blur(self, content: bytes | Problem) -> Seen:
        """Raises Problem."""
        if isinstance(content, Problem):
            raise content
        seen, _ = await self._outcome(Job(content, None, None, None, "image", request_id()))
        self.metrics.hid(seen)
        return seen

    async def _outcome(self, job: Job) -> tuple[Seen, float]:
        outcome, waited = await self.dispatch(job)
        if isinstance(outcome, Problem):
            raise outcome
        return outcome, waited

    def health(self) -> Health:
        workers, current = self.dispatch.workers(), self.loaded.current
        down = [number for number, state in workers.items() if state != "ready"]
        reasons = [self.loaded.reason] if self.loaded.reason else []
        reasons += [f"worker {number} is being started" for number in down]
        if not self.settings.enable_preprocessing:
            reasons.append("faces are NOT hidden: ENABLE_PREPROCESSING=false and ALLOW_UNBLURRED=true")
        ready = current is not None and len(down) < len(workers)
        return Health(
            status="not ready" if not ready else "degraded" if reasons else "ok",
            reasons=reasons,
            preprocessing=self.settings.enable_preprocessing,
            model=current.ref if current else None,
            engine=self.loaded.engine(current.version) if current else None,
            workers={str(number): state for number, state in workers.items()},
            git=current.release.lineage.git if current else None,
        )


def answered(seen: Seen, served: Served, since: float) -> Answer:
    release = served.release
    class_ids = np.array([hand.class_id for hand in seen.hands], np.int64)
    return Answer(
        finger_count=finger_count(class_ids, release.counts),
        unknown_hands=sum(release.counts[hand.class_id] is None for hand in seen.hands),
        predictions=[
            Prediction(
                class_name=release.classes[hand.class_id],
                class_id=hand.class_id,
                confidence=round(hand.confidence, 4),
                bbox=hand.box,
            )
            for hand in seen.hands
        ],
        faces_blurred=seen.faces,
        preprocessing_applied=seen.blurred,
        image=Size(width=seen.width, height=seen.height),
        inference_time_ms=milliseconds(seen.detect),
        timing_ms=Timing(
            decode=milliseconds(seen.decode),
            faces=milliseconds(seen.hide),
            detect=milliseconds(seen.detect),
            total=milliseconds(time.perf_counter() - since),
        ),
        model=served.ref,
        blurred=base64.b64encode(seen.jpeg).decode() if seen.jpeg else None,
    )


def milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 2)
