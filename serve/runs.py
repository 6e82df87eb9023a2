"""The runs in MLflow -> pages of a list, and curves: asked for in threads, so that a slow MLflow slows nothing else."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Path, Query

from serve.api import COMMON, error
from serve.problems import Problem, unavailable
from serve.schema import Curves, ListedRun, RunList, Series
from serve.settings import Settings
from stages.mlflow_client import Refused
from stages.params import StageError
from stages.runs import Point, Run, Runs, Sort, Wanted

FRESH = 2.0  # s for which an answer is given again: each page that watches a training asks every few seconds
WITHIN = 8.0  # s that a request waits for MLflow
THREADS = 2
MOST_ASKED = 64  # questions under way, two of them in threads
MOST_SERIES = 40
NO_MLFLOW = "this server was started without MLFLOW_TRACKING_URI: it knows of no runs; `fingers up` starts an MLflow"

T = TypeVar("T")
RunId = Annotated[str, Path(pattern="^[0-9a-f]{32}$", examples=["4f1c9a70e6c34d1b8a5f0e2d7c6b9a81"])]
Text = Annotated[str, Query(max_length=100, pattern=r"^[^'\"`\\;\x00-\x1f]*$")]
Name = Annotated[str, Query(min_length=1, max_length=250, pattern=r"^[\w./ -]+$")]  # what MLflow takes for a metric's


def runs_routes(settings: Settings) -> APIRouter:
    router, experiment = APIRouter(), Experiment(bool(settings.mlflow_tracking_uri))

    @router.get(
        "/runs",
        response_model=RunList,
        responses={**COMMON, **error(404, "no such page"), **error(422, "a parameter that is not taken")},
        summary="Trainings, page by page; answers 200 also without MLflow, and says so",
    )
    async def runs(
        state: Annotated[Literal["running", "finished", "failed", "killed"] | None, Query()] = None,
        architecture: Annotated[Text, Query(description="part of it, such as yolo11n")] = "",
        text: Annotated[Text, Query(description="part of the name")] = "",
        sort: Annotated[Sort, Query()] = "started",
        descending: Annotated[bool, Query()] = True,
        size: Annotated[int, Query(ge=1, le=100)] = 25,
        page: Annotated[str | None, Query(max_length=500, pattern="^[\\w=+/-]+$")] = None,
    ) -> RunList:
        wanted = Wanted((state or "").upper(), text, architecture, sort, descending)
        return await experiment.runs(wanted, size, page)

    @router.get(
        "/runs/{id}/metrics",
        response_model=Curves,
        responses={
            **COMMON,
            **error(404, "no such run"),
            **error(422, "a parameter that is not taken"),
            **error(503, "MLflow is away, or there is none"),
        },
        summary="Curves of a training",
    )
    async def metrics(
        id: RunId,  # noqa: A002 -- as the path has it
        name: Annotated[list[Name], Query(max_length=MOST_SERIES, description="of metrics; all if left out")] = [],  # noqa: B006
        points: Annotated[int, Query(ge=4, le=5000, description="of a series, at most")] = 500,
    ) -> Curves:
        return await experiment.curves(id, tuple(name), points)

    return router


class Experiment:
    """Of the API process. What MLflow answered is remembered for a moment, and asked for once however many wait."""

    def __init__(self, has_mlflow: bool) -> None:
        self._has_mlflow = has_mlflow
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="mlflow")
        self._answers: dict[Hashable, asyncio.Future[Any]] = {}
        self._connected: Runs | None = None

    async def runs(self, wanted: Wanted, size: int, page: str | None) -> RunList:
        """Raises Problem when MLflow gave out no such page, or takes no such filter."""
        if not self._has_mlflow:
            return RunList(runs=[], next=None, unavailable=NO_MLFLOW)
        try:
            return await self._asked((wanted, size, page), lambda: self._page(wanted, size, page))
        except Refused as refusal:
            if page is not None:
                raise Problem(404, "not_found", f"no such page; ask again without it ({refusal})") from None
            raise Problem(422, "invalid_parameter", str(refusal)) from None
        except StageError as away:
            return RunList(runs=[], next=None, unavailable=str(away))

    async def curves(self, run_id: str, names: Sequence[str], points: int) -> Curves:
        """Raises Problem."""
        if not self._has_mlflow:
            raise unavailable(NO_MLFLOW, retry_after=60)
        try:
            return await self._asked((run_id, names, points), lambda: self._curves(run_id, names, points))
        except StageError as away:
            raise unavailable(str(away), retry_after=5) from None

    async def _asked(self, key: Hashable, ask: Callable[[], T]) -> T:
        """Raises StageError, too when MLflow takes too long; its answer is then there for who asks again."""
        answer = self._answers.get(key)
        if answer is None:
            if sum(not asked.done() for asked in self._answers.values()) >= MOST_ASKED:
                raise StageError(f"{MOST_ASKED} questions to MLflow are under way; ask again")
            loop = asyncio.get_running_loop()
            answer = self._answers[key] = loop.run_in_executor(self._threads, ask)
            answer.add_done_callback(lambda done: self._answered(key, done))
        try:
            async with asyncio.timeout(WITHIN):
                waited: Awaitable[T] = asyncio.shield(answer)
                return await waited
        except TimeoutError:
            raise StageError(f"MLflow has not answered within {WITHIN:g} s; asking goes on") from None

    def _answered(self, key: Hashable, answer: asyncio.Future[Any]) -> None:
        if not answer.cancelled():
            answer.exception()  # looked at: nobody may be waiting any more, and asyncio would log it as lost
        answer.get_loop().call_later(FRESH, self._answers.pop, key, None)

    def _page(self, wanted: Wanted, size: int, page: str | None) -> RunList:
        runs = self._runs()
        found, following = runs.page(wanted, size, page)
        return RunList(runs=[listed(run, runs.condition(run)) for run in found], next=following, unavailable=None)

    def _curves(self, run_id: str, names: Sequence[str], points: int) -> Curves:
        runs = self._runs()
        run = runs.get(run_id)
        if run is None:
            raise Problem(404, "not_found", f"no run {run_id}")
        wanted = names or sorted(run.metrics)[:MOST_SERIES]
        found = {name: runs.history(run, name) for name in wanted if name in run.metrics}
        return Curves(
            id=run.id,
            state=runs.condition(run),
            series=[series(name, thinned(newest_of_each_step(history), points)) for name, history in found.items()],
        )

    def _runs(self) -> Runs:
        """In a thread: connecting asks MLflow whether it is there."""
        self._connected = self._connected or Runs()
        return self._connected


def listed(run: Run, state: str) -> ListedRun:
    weights, epochs = run.params.get("train.weights"), run.params.get("train.epochs", "")
    ended = run.ended or (run.epoch.time if run.epoch else run.started)
    return ListedRun(
        id=run.id,
        name=run.name,
        state=state,
        architecture=PurePath(weights).stem if weights else None,
        epochs=run.epoch.step if run.epoch else 0,
        of_epochs=int(epochs) if epochs.isdecimal() else None,
        val_map50=finite(run.epoch.value) if run.epoch else None,
        map50=finite(run.metrics.get("test/map50")),
        count_accuracy=finite(run.metrics.get("test/count_accuracy")),
        version=run.tags.get("model_version"),
        started=datetime.fromtimestamp(run.started / 1000, UTC),
        seconds=max(0, ended - run.started) / 1000,
        metrics=sorted(run.metrics),
    )


def newest_of_each_step(points: Sequence[Point]) -> list[Point]:
    """A training that was gone on with may have an epoch twice. points: by step."""
    newest: dict[int, Point] = {}
    for point in points:
        if point.step not in newest or point.time >= newest[point.step].time:
            newest[point.step] = point
    return list(newest.values())


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """The first, the last, and of equal stretches between them the lowest and the highest: no spike is lost."""
    if len(points) <= most:
        return list(points)
    inner, stretches = points[1:-1], (most - 2) // 2
    kept = [points[0]]
    for n in range(stretches):
        stretch = inner[n * len(inner) // stretches : (n + 1) * len(inner) // stretches]
        low, high = min(stretch, key=height), max(stretch, key=height)
        kept += sorted({low, high}, key=lambda point: point.step)
    return [*kept, points[-1]]


def height(point: Point) -> float:
    return point.value if math.isfinite(point.value) else -math.inf


def series(name: str, points: Sequence[Point]) -> Series:
    steps, values = [point.step for point in points], [finite(point.value) for point in points]
    return Series(name=name, steps=steps, values=values)


def finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
