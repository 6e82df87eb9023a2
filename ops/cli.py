"""`fingers`: everything that is not DVC, as commands of one program."""

import logging
import os
import sys
from pathlib import Path

import typer

from ops.dotenv import read_dotenv
from stages.launch import configure_logging
from stages.params import StageError

logger = logging.getLogger("ops")

app = typer.Typer(
    help="Everything that is not DVC: servers, registry, runs, backup.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a bug keeps its plain traceback
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)


def main() -> None:
    """Exit code 0: done; 1: something a person can mend, said in one line; 2: the command line is wrong."""
    configure_logging("fingers")
    try:
        root = repository()
        os.environ.setdefault("DVC_ROOT", str(root))  # what DVC tells its stages: .local/ lies there
        for name, value in read_dotenv(root / ".env").items():
            os.environ.setdefault(name, value)
        app()
    except StageError as error:
        logger.error("%s", error)
        sys.exit(1)


def repository() -> Path:
    """The nearest folder upwards with a dvc.yaml. Raises StageError when there is none."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").is_file():
            return folder
    raise StageError(f"{here}: no dvc.yaml here or above; run fingers inside a clone of the repository")


@app.callback()
def callback() -> None:
    """Keeps `fingers` a group while it has one command."""
