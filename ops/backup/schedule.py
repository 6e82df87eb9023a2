"""An interval -> dated backups in a folder, the oldest of which go: `fingers backup --every 24h --keep 14`."""

import logging
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from stages.params import StageError

logger = logging.getLogger(__name__)

DATED = "fingers-%Y%m%dT%H%M%SZ.zip"
AGAIN_AFTER = timedelta(minutes=10)  # a backup that failed
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def repeat(folder: Path, every: timedelta, keep: int | None, back_up: Callable[[Path], object]) -> None:
    """For ever. What was there before counts: started again every minute, it still makes one backup an interval.

    A backup that fails is tried again soon, and costs no older one its place.
    """
    while True:
        due = max((date + every for _, date in dated(folder)), default=now())
        if due > now():
            logger.info("the next backup is due at %s", due.isoformat(timespec="minutes"))
            time.sleep((due - now()).total_seconds())
        try:
            back_up(folder / dated_name())
            prune(folder, keep)
        except StageError as error:
            wait = min(every, AGAIN_AFTER)
            logger.warning("no backup was made, none was deleted: %s; again in %s", error, wait)
            time.sleep(wait.total_seconds())


def prune(folder: Path, keep: int | None) -> list[Path]:
    """The dated backups that went: all but the newest `keep`, or none. Other files are not ours."""
    if keep is None:
        return []
    oldest = [path for path, _ in dated(folder)][:-keep]
    for path in oldest:
        path.unlink()
    return oldest


def dated(folder: Path) -> Iterator[tuple[Path, datetime]]:
    """Oldest first."""
    for path in sorted(folder.glob("fingers-*.zip")):
        if re.fullmatch(r"fingers-\d{8}T\d{6}Z\.zip", path.name):
            yield path, datetime.strptime(path.name, DATED).replace(tzinfo=UTC)


def dated_name() -> str:
    return now().strftime(DATED)


def now() -> datetime:
    return datetime.now(UTC)


def parsed_interval(text: str) -> timedelta:
    """24h, 30m, 7d, 90s. Raises ValueError."""
    found = re.fullmatch(r"([1-9]\d*)([smhd])", text)
    if not found:
        raise ValueError(f"{text!r} is no interval; write 24h, 30m, 7d")
    return timedelta(**{UNITS[found[2]]: int(found[1])})
