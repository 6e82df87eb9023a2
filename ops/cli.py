"""`fingers`: everything that is not DVC, as commands of one program."""

import logging
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from ops.dotenv import read_dotenv
from ops.show import show
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


@app.command()
def doctor(
    checks: Annotated[list[str] | None, typer.Argument(help="Only these, as the first column names them.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Tests each piece that the project runs on; for those that fail, says why and what to do. Exit 1 if one does.

    Examples:

      fingers doctor

      fingers doctor remote && dvc push
    """
    from ops.doctor import examine  # noqa: PLC0415

    findings = examine(repository(), checks or ())
    show([{"check": name, **asdict(finding)} for name, finding in findings.items()], as_json=as_json, empty="")
    if any(finding.state == "failed" for finding in findings.values()):
        raise typer.Exit(1)


@app.command()
def up(as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False) -> None:
    """Starts S3, PostgreSQL and MLflow here, for this machine alone; writes where, and the keys, into .env.

    Again, it starts what does not run. Ports: FINGERS_S3_PORT (9000) and FINGERS_MLFLOW_PORT (5000), in .env.

    Examples:

      fingers up

      fingers up && dvc push
    """
    from ops import stack  # noqa: PLC0415

    show([asdict(row) for row in stack.up(repository(), os.environ)], as_json=as_json, empty="")


@app.command()
def down() -> None:
    """Stops the servers that `fingers up` started; what they hold stays.

    Examples:

      fingers down
    """
    from ops import stack  # noqa: PLC0415

    stopped = stack.down(repository())
    logger.info("stopped: %s", ", ".join(stopped) or "none ran")


@app.command()
def status(as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False) -> None:
    """Asks each server that the environment or .env names, here or elsewhere. Exit 1 if one is down, or none is named.

    Examples:

      fingers status

      MLFLOW_TRACKING_URI=https://mlflow.example.org fingers status --json
    """
    from ops import stack  # noqa: PLC0415

    rows = stack.status(repository(), os.environ)
    show([asdict(row) for row in rows], as_json=as_json, empty="no server is named; `fingers up` starts them here")
    if not rows or any(row.state == "down" for row in rows):
        raise typer.Exit(1)


@app.command()
def logs(
    server: Annotated[Literal["s3", "postgres", "mlflow"] | None, typer.Argument(help="Only this one.")] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Of each, from its end.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show new ones as they come.")] = False,
) -> None:
    """Shows what the servers here have written.

    Examples:

      fingers logs

      fingers logs mlflow --follow
    """
    from ops import stack  # noqa: PLC0415

    for line in stack.logs(repository(), [server] if server else list(stack.ASK), lines=lines, follow=follow):
        typer.echo(line)
