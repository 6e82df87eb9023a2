"""A Job -> its Outcome from one of LitServe's workers, whatever happens to the worker: each ends in time.

LitServe leaves a request hanging for ever when the process that works on it dies. This is the one place that knows
LitServe's insides (0.2.19): its request queue and its buffer of responses.
"""

import asyncio
import logging
import os
import signal
import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

import psutil
from fastapi import HTTPException
from litserve import LitServer
from litserve.server import RegularRequestHandler
from litserve.utils import LitAPIStatus, ResponseBufferItem

from serve.board import Board
from serve.jobs import Job, Outcome
from serve.problems import Problem, unavailable
from serve.worker import Worker

logger = logging.getLogger(__name__)

LOOK = 0.1  # s between two looks at the workers
LAST_GET = 1.0  # s that a worker's request for its next job outlives it, in LitServe's queue
LOST = 2.0  # s without a sign of life after which a job that a dead worker may have taken counts as taken
LATE = 60.0  # s after which an answer that came too late is forgotten


@dataclass
class Ticket(ResponseBufferItem):
    """A job on its way."""

    sent: float = field(default_factory=time.monotonic)
    begun: float | None = None  # when a worker said that it had taken it

    def __setattr__(self, name: str, value: object) -> None:
        if name == "worker_id" and value is not None:
            self.begun = time.monotonic()
        super().__setattr__(name, value)

    def end(self) -> None:
        """Its worker is gone."""
        if not self.event.is_set():
            self.response = (unavailable("the process that worked on the picture ended; ask again"), LitAPIStatus.OK)
            self.event.set()

    def is_old(self, age: float) -> bool:
        return time.monotonic() - self.sent > age


class Dispatch:
    """Of the API process. At most `most` jobs are under way at a time, each for at most `timeout` s."""

    def __init__(self, server: LitServer, worker: Worker, board: Board, most: int, timeout: float) -> None:
        self._tickets: dict[str, Ticket] = server.response_buffer  # LitServe writes the answers into it
        self._handler = RegularRequestHandler(worker, server)
        self._board = board
        self._most = most
        self._timeout = timeout
        self._living: dict[int, int] = {}  # worker: its pid
        self._deaths: deque[float] = deque(maxlen=16)
        self.versions: Counter[str | None] = Counter()  # how many jobs each model has under way
        self.restarts = 0

    async def __call__(self, job: Job) -> tuple[Outcome, float]:
        """The outcome, and how many s the job waited for a worker."""
        if self.versions.total() >= self._most:
            return unavailable(f"{self._most} pictures are under way already; ask again in a moment"), 0.0
        ticket = Ticket(asyncio.Event())
        self.versions[job.version] += 1
        try:
            uid, _ = await self._handler._submit_request(job)
            self._tickets[uid] = ticket
            await asyncio.wait_for(ticket.event.wait(), self._timeout)
        except (EOFError, ConnectionError):
            return unavailable("the server is ending"), 0.0
        except TimeoutError:
            return Problem(504, "timeout", f"no answer within {self._timeout:g} s"), 0.0
        finally:
            self.versions[job.version] -= 1
        del self._tickets[uid]
        return outcome(ticket), (ticket.begun or ticket.sent) - ticket.sent

    def workers(self) -> dict[int, Literal["ready", "starting"]]:
        """By number."""
        return {n: "ready" if alive(holding.pid) else "starting" for n, holding in self._board.holdings().items()}

    def pids(self) -> dict[int, int]:
        return {number: holding.pid for number, holding in self._board.holdings().items()}

    async def watch(self) -> None:
        """For ever: answers for workers that died, and ends those that are stuck; LitServe starts them again."""
        while True:
            await asyncio.sleep(LOOK)
            for number, holding in self._board.holdings().items():
                if alive(holding.pid):
                    self._living[number] = holding.pid
                    self._end_if_stuck(number, holding.pid)
                elif self._living.pop(number, None):
                    self._answer_for(number)
            self._answer_for_the_lost()
            for uid in [uid for uid, ticket in self._tickets.items() if ticket.event.is_set() and ticket.is_old(LATE)]:
                del self._tickets[uid]  # nobody waited for it any more

    def _end_if_stuck(self, number: int, pid: int) -> None:
        now = time.monotonic()
        begun = [t.begun for t in self._tickets.values() if t.worker_id == number and not t.event.is_set()]
        if any(at is not None and now - at > self._timeout for at in begun):
            logger.error("worker %d was at one picture for more than %g s; it is ended", number, self._timeout)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _answer_for(self, number: int) -> None:
        """The worker died: what it had begun ends now."""
        self._deaths.append(time.monotonic())
        self.restarts += 1
        logger.error("worker %d died; it is started again", number)
        for ticket in self._tickets.values():
            if ticket.worker_id == number:
                ticket.end()

    def _answer_for_the_lost(self) -> None:
        """A worker may die between taking a job and saying so; its connection may even take one more after that."""
        now = time.monotonic()
        for ticket in self._tickets.values():
            taken = any(
                ticket.sent <= death + LAST_GET and now - max(death, ticket.sent) > LOST for death in self._deaths
            )
            if ticket.begun is None and taken:
                ticket.end()


def outcome(ticket: Ticket) -> Outcome:
    """What a worker answers is a value; an error of LitServe's own loop comes as an exception, or one in bytes."""
    content, status = ticket.response
    if status == LitAPIStatus.OK:
        answer: Outcome = content
        return answer
    if isinstance(content, HTTPException) and content.status_code == 504:
        return Problem(504, "timeout", "no worker was free in time")
    return Problem(500, "internal", "the picture could not be processed, and nothing of it was kept")


def alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
