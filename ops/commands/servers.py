"""`fingers up`, `status`, `serve` and others: servers here, how those elsewhere are, and what is wrong."""

import logging
import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from ops.commands.options import AsJson
from ops.repository import repository
from ops.show import show

logger = logging.getLogger("ops")

app = typer.Typer()
PANEL = "Servers"


@app.command(rich_help_panel=PANEL)
def up(as_json: AsJson = False) -> None:
    """Starts S3, PostgreSQL and MLflow here, for this machine alone; writes where, and the keys, into .env.

    Again, it starts what does not run. Ports: FINGERS_S3_PORT (9000) and FINGERS_MLFLOW_PORT (5000), in .env.

    Examples:

      fingers up

      fingers up && dvc push
    """
    from ops import stack  # noqa: PLC0415

    show([asdict(row) for row in stack.up(repository(), os.environ)], as_json=as_json, empty="")


@app.command(rich_help_panel=PANEL)
def down() -> None:
    """Stops the servers that `fingers up` started; what they hold stays.

    Examples:

      fingers down
    """
    from ops import stack  # noqa: PLC0415

    stopped = stack.down(repository())
    logger.info("stopped: %s", ", ".join(stopped) or "none ran")


@app.command(rich_help_panel=PANEL)
def status(as_json: AsJson = False) -> None:
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


@app.command(rich_help_panel=PANEL)
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
    from ops.ask import ASK  # noqa: PLC0415

    for line in stack.logs(repository(), [server] if server else list(ASK), lines=lines, follow=follow):
        typer.echo(line)


@app.command(rich_help_panel=PANEL)
def doctor(
    checks: Annotated[list[str] | None, typer.Argument(help="Only these, as the first column names them.")] = None,
    as_json: AsJson = False,
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


@app.command(rich_help_panel=PANEL)
def serve(
    port: Annotated[int | None, typer.Option(help="Instead of PORT, or 8000.")] = None,
    device: Annotated[str | None, typer.Option(help="Instead of SERVE_DEVICE: auto, cpu, cuda, tensorrt.")] = None,
) -> None:
    """Answers HTTP: counts fingers in pictures, faces hidden first. Ctrl-C ends it.

    With MLFLOW_TRACKING_URI set it serves the registry's champion, else models/release.json. All settings are in
    .env.example; http://127.0.0.1:8000/docs says what it answers.

    Examples: fingers serve;  curl -F file=@hand.jpg http://127.0.0.1:8000/predict
    """
    from serve.server import serve as run  # noqa: PLC0415
    from serve.settings import read_settings  # noqa: PLC0415

    given = {"PORT": port, "SERVE_DEVICE": device}
    settings = read_settings({**os.environ, **{name: str(value) for name, value in given.items() if value is not None}})
    raise typer.Exit(run(settings))


@app.command(rich_help_panel=PANEL)
def exporter(
    disk: Annotated[list[Path] | None, typer.Option(exists=True, help="A folder on it; repeatable.")] = None,
    backups: Annotated[Path | None, typer.Option(help="The folder that `fingers backup` fills.")] = None,
    tls: Annotated[
        list[str] | None, typer.Option(metavar="HOST:PORT", help="Whose certificate is watched; repeatable.")
    ] = None,
    host: Annotated[str, typer.Option(help="Of the address to answer on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1024, max=65535, help="Likewise.")] = 9101,
) -> None:
    """Answers Prometheus: which servers of the environment are up, free disk, the newest backup, certificates.

    What alerts come of it, and what to do then, is in docs/runbook.md. Ctrl-C ends it.

    Examples:

      fingers exporter --disk / --backups /mnt/nas --tls hands.example.org:443
    """
    from ops.exporter import Exporter, export  # noqa: PLC0415
    from serve.logs import configure_logging as configure_server_logging  # noqa: PLC0415

    for address in tls or ():
        if not re.fullmatch(r".+:\d{1,5}", address):
            raise typer.BadParameter(f"{address!r} is no HOST:PORT", param_hint="--tls")
    configure_server_logging("auto", "fingers")
    export(Exporter(disk or (), backups, tls or (), os.environ), host, port)
