"""`fingers`: everything that is not DVC, as commands of one program."""

import logging
import os
import sys

import typer

from ops.commands import annotators, archive, pictures, registry, servers
from ops.dotenv import read_dotenv
from ops.repository import repository
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
for commands in (servers, pictures, registry, archive):
    app.add_typer(commands.app)
app.add_typer(annotators.app, name="picsellia")


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
