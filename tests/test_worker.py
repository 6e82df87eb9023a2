"""A worker's answers when something in it breaks: always a value that crosses to the API process, never the picture."""

import json
import logging
import pickle
import signal
from collections.abc import Iterator
from contextvars import copy_context
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest

from serve import worker as module
from serve.board import Board
from serve.jobs import Job, Seen
from serve.logs import JsonLines
from serve.problems import Problem
from serve.settings import Settings, read_settings
from serve.worker import Worker
from tests.pictures import saved
from tests.server import write_repository

JOB = Job(saved("JPEG"), "release", None, None, "none")


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    """As LitServe sets it up, but in this process."""
    monkeypatch.setattr(module, "end_with_parent", lambda: None)  # this process has none
    monkeypatch.setattr(module, "configure_logging", lambda log_format: None)
    monkeypatch.setenv("LITSERVE_WORKER_ID", "0")
    board = Board(tmp_path)
    board.want({"release": write_repository(tmp_path / "repository") / "models"})
    interrupt = signal.getsignal(signal.SIGINT)
    ours = Worker(read_settings({"MAX_BATCH_SIZE": "4"}), board)
    ours.pre_setup()
    ours.setup("cpu")
    yield ours
    signal.signal(signal.SIGINT, interrupt)


class Unpicklable(Exception):
    """LitServe would end the process over it."""

    def __reduce__(self) -> str:
        raise TypeError("cannot be pickled")


def test_a_picture_is_seen(worker: Worker) -> None:
    seen = worker.predict(JOB)
    assert isinstance(seen, Seen)
    assert [hand.class_id for hand in seen.hands] == [3]
    assert seen.jpeg is None


def test_whatever_breaks_is_an_answer_without_picture_or_message(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*arguments: object) -> None:
        raise Unpicklable(f"could not blur {JOB.content!r}")

    monkeypatch.setattr(module, "look", broken)
    answer = worker.predict(JOB)
    assert isinstance(answer, Problem)
    assert (answer.status, answer.code) == (500, "internal")
    assert pickle.loads(pickle.dumps(answer)).message == answer.message  # noqa: S301 -- our own
    assert "Unpicklable in test_worker.py" in caplog.text
    assert "could not blur" not in caplog.text + answer.message


def test_what_a_worker_logs_about_a_picture_has_the_id_of_its_request(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = logging.StreamHandler(StringIO())
    written.setFormatter(JsonLines())
    monkeypatch.setattr(module.logger, "handlers", [written])
    monkeypatch.setattr(module, "look", lambda *arguments: 1 / 0)
    copy_context().run(worker.predict, replace(JOB, request_id="4f1c"))
    assert json.loads(written.stream.getvalue())["request_id"] == "4f1c"


def test_one_bad_picture_does_not_spoil_what_litserve_put_together_with_it(worker: Worker) -> None:
    bad = Job(b"no picture", "release", None, None, "none")
    answers = worker.unbatch(worker.predict(worker.batch([JOB, bad, JOB])))
    assert [type(answer) for answer in answers] == [Seen, Problem, Seen]


def test_a_version_that_was_let_go_is_told_and_not_guessed(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LATE", 0.1)
    answer = worker.predict(Job(saved("JPEG"), "7", None, None, "none"))
    assert isinstance(answer, Problem)
    assert (answer.status, answer.code) == (503, "unavailable")


def test_a_job_shows_nothing_of_its_picture() -> None:
    assert repr(JOB) == f"<Job {len(JOB.content)} B>"


def test_blurring_is_off_only_when_both_switches_say_so(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    off = Settings(enable_preprocessing=False, allow_unblurred=True)
    unblurred = Worker(off, Board(tmp_path))
    unblurred.setup("cpu")
    seen = unblurred.predict(JOB)
    assert isinstance(seen, Seen)
    assert seen.blurred is False
