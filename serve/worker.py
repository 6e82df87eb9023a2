"""A Job -> an Outcome: decode, hide faces, and only then look for hands. What LitServe runs in each worker process."""

import json
import logging
import os
import signal
import threading
import time
import traceback
from dataclasses import asdict, replace
from functools import lru_cache
from multiprocessing import parent_process
from multiprocessing.connection import wait
from pathlib import Path

import cv2
from filelock import FileLock
from litserve import LitAPI

from serve.board import Board, Holding
from serve.jobs import Job, Outcome, Seen
from serve.logs import configure_logging, current_request
from serve.problems import Problem, unavailable
from serve.settings import Settings
from serve.sight import FACES, Model, checked_release, decoded, hiding, look, tried
from stages.files import write_text
from stages.params import FaceParams, StageError
from stages.release import Release
from stages.vision import engines
from stages.vision.faces import Blur

logger = logging.getLogger(__name__)

POLL = 0.1  # s between two looks at the board
LATE = 5.0  # s that a job waits for a model which is still being loaded


class Worker(LitAPI):
    """Holds the models that the board wants. Every answer is a value: an exception that cannot be pickled would end
    the process, and one picture's error must not be its batch's.
    """

    def __init__(self, settings: Settings, board: Board) -> None:
        super().__init__(
            api_path="/predict", max_batch_size=settings.max_batch_size, batch_timeout=settings.batch_timeout
        )
        self._settings = settings
        self._board = board

    def setup(self, device: str) -> None:
        end_with_parent()
        configure_logging(self._settings.log_format)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the main process ends us, last
        cv2.setNumThreads(1)
        self._models: dict[str, Model] = {}
        self._failed: dict[str, str] = {}
        self._engines: dict[str, str] = {}
        self._loaded = threading.Condition()
        self._inference = threading.Lock()  # a new model is tried between two pictures: neither is for two threads
        self._blur_for = lru_cache(maxsize=4)(self._new_blur)
        self._number = int(os.environ["LITSERVE_WORKER_ID"])
        self._only_blur = self._blur_for(FACES)
        while self._board.wanted() is None:
            time.sleep(POLL)
        seen = self._follow(0)
        threading.Thread(target=self._keep_following, args=[seen], daemon=True, name="board").start()

    def decode_request(self, request: Job) -> Job:
        return request

    def predict(self, x: Job | list[Job]) -> Outcome | list[Outcome]:
        return [self._answer(job) for job in x] if isinstance(x, list) else self._answer(x)

    def encode_response(self, output: Outcome) -> Outcome:
        return output

    def _answer(self, job: Job) -> Outcome:
        current_request.set(job.request_id)
        try:
            return self._seen(job)
        except Problem as problem:
            return problem
        except Exception as error:  # noqa: BLE001 -- whatever it is, the caller gets an error and not the picture
            logger.error("a picture could not be processed: %s", where(error))
            return Problem(500, "internal", "the picture could not be processed, and nothing of it was kept")

    def _seen(self, job: Job) -> Seen:
        model = self._model(job.version) if job.version is not None else None
        started = time.perf_counter()
        image = decoded(job.content, self._settings.max_pixels)
        decode = time.perf_counter() - started
        with self._inference:
            seen = look(image, model.blur if model else self._only_blur, model, job.confidence, job.iou, job.render)
        return replace(seen, blurred=self._settings.enable_preprocessing, decode=decode)

    def _model(self, version: str) -> Model:
        """A job is stamped with a version that every worker had; one that was just born may still be loading it."""
        with self._loaded:
            self._loaded.wait_for(lambda: version in self._models, LATE)
            try:
                return self._models[version]
            except KeyError:
                raise unavailable(f"version {version} is not loaded any more; ask again") from None

    def _keep_following(self, seen: int) -> None:
        while True:
            time.sleep(POLL)
            if self._board.changed() != seen:
                seen = self._follow(seen)

    def _follow(self, seen: int) -> int:
        """Loads what the board wants beside what answers now, and lets go of the rest."""
        seen, wanted = self._board.changed(), self._board.wanted() or {}
        for version, folder in wanted.items():
            if version not in self._models:
                self._load(version, folder)
        for gone in set(self._models) - set(wanted):
            del self._models[gone], self._engines[gone]
        self._failed = {version: why for version, why in self._failed.items() if version in wanted}
        self._board.report(self._number, Holding(os.getpid(), dict(self._engines), dict(self._failed)))
        return seen

    def _load(self, version: str, folder: Path) -> None:
        try:
            release = checked_release(folder)
            with FileLock(self._board.folder / "measure.lock"):  # one worker measures, the others do as it found
                choice = chosen(self._board.folder / f"engine-{release.identity[:12]}", folder, release, self._settings)
            detector = engines.load(folder, release, choice, self._settings.serve_threads)
            model = Model(release, detector, self._blur_for(hiding(release.faces)))
            with self._inference:
                tried(model)
        except (StageError, Problem, RuntimeError) as error:
            logger.error("worker %d: version %s could not be loaded: %s", self._number, version, error)
            self._failed[version] = str(error)
            return
        with self._loaded:
            self._models[version] = model
            self._engines[version] = str(choice)
            self._loaded.notify_all()

    def _new_blur(self, faces: FaceParams) -> Blur:
        allowed = self._settings.enable_preprocessing
        return Blur(faces if allowed else faces.model_copy(update={"detector": "none"}), self._settings.serve_threads)


def chosen(note: Path, folder: Path, release: Release, settings: Settings) -> engines.Choice:
    if not note.exists():
        choice = engines.pick(folder, release, settings.serve_device, settings.serve_threads)
        write_text(note, json.dumps(asdict(choice)))
    return engines.Choice(**json.loads(note.read_bytes()))


def where(error: BaseException) -> str:
    """The kind of error and the line it rose from. Not its message: a library may quote in it what it worked on."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}"


def end_with_parent() -> None:
    """A process that lost its parent to kill -9 would hold memory and the port for ever."""
    parent = parent_process()
    assert parent is not None, "runs in a child process"

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent").start()
