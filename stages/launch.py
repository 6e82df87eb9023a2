"""A stage's function -> a command: logging, paths from the command line, one line for what a person can mend."""

import errno
import inspect
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from stages.params import StageError, load_params


def launch(stage: Callable[..., None]) -> None:
    """Calls stage(params, *paths) with the paths that the command line gives, in the order of its signature."""
    configure_logging(stage.__name__)
    logger = logging.getLogger("stages")
    try:
        stage(load_params(), *paths_for(stage, sys.argv[1:]))
    except StageError as error:
        logger.error("%s", error)
        sys.exit(1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = error.filename or " ".join(sys.argv[1:])  # writing to an open file does not name it
        logger.error("%s: disk full; nothing was left half-written: free some space and run it again", where)
        sys.exit(1)
    except KeyboardInterrupt:
        logger.error("interrupted")
        sys.exit(130)


def paths_for(stage: Callable[..., None], arguments: list[str]) -> list[Path]:
    names = list(inspect.signature(stage).parameters)[1:]
    if len(arguments) != len(names):
        usage = " ".join(name.upper() for name in names)
        raise StageError(f"{len(arguments)} paths given; usage: python -m stages.{stage.__name__} {usage}")
    return [Path(argument) for argument in arguments]


def configure_logging(prefix: str) -> None:
    """Our loggers at INFO, everybody else's at WARNING, each line opened by the stage's name, on stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines(prefix))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for ours in ("stages", "ops", "__main__"):  # the stage itself runs as __main__
        logging.getLogger(ours).setLevel(logging.INFO)


class _Lines(logging.Formatter):
    def __init__(self, prefix: str) -> None:
        super().__init__()
        self.prefix = prefix

    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        return f"{self.prefix}: {level}{super().format(record)}"
