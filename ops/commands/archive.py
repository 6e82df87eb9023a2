"""`fingers backup` and `fingers restore`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ops.commands.options import AsJson
from ops.show import show

app = typer.Typer()
PANEL = "Backup"


@app.command(rich_help_panel=PANEL)
def backup(
    path: Annotated[Path | None, typer.Argument(help="A .zip, or a folder for one with the date in its name.")] = None,
    every: Annotated[str | None, typer.Option(help="Goes on for ever, at this interval: 24h, 30m, 7d.")] = None,
    keep: Annotated[int | None, typer.Option(min=1, help="Deletes all but so many of the dated ones.")] = None,
    with_cache: Annotated[
        list[str] | None, typer.Option(metavar="REV", help="With the DVC cache of this git revision; repeatable.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Puts all that MLflow has, artifacts included, into a zip; safe while training goes on. See docs/backup.md.

    Examples:

      fingers backup

      fingers backup /mnt/nas --every 24h --keep 14

      fingers backup release.zip --with-cache HEAD
    """
    from ops.backup import schedule  # noqa: PLC0415
    from ops.backup.take import take  # noqa: PLC0415
    from serve.logs import configure_logging as configure_server_logging  # noqa: PLC0415
    from stages.lineage import local_folder  # noqa: PLC0415
    from stages.mlflow_client import tracking_uri  # noqa: PLC0415

    where = path or local_folder() / "backups"
    if where.suffix == ".zip" and (every or keep):
        raise typer.BadParameter("a backup that comes again has its date as its name; give a folder", param_hint="PATH")
    if every:
        try:
            interval = schedule.parsed_interval(every)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--every") from None
        configure_server_logging("auto", "fingers")
        schedule.repeat(where, interval, keep, lambda file: take(file, tracking_uri(), with_cache or ()))
    taken = take(where if where.suffix == ".zip" else where / schedule.dated_name(), tracking_uri(), with_cache or ())
    schedule.prune(where, keep)
    show([{"file": taken.path, "bytes": taken.size, **taken.manifest.counts}], as_json=as_json, empty="")


@app.command(rich_help_panel=PANEL)
def restore(
    file: Annotated[Path, typer.Argument(help="What `fingers backup` wrote.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Lists what would be done, and does nothing.")] = False,
    on_conflict: Annotated[
        Literal["skip", "overwrite", "copy"],
        typer.Option(
            help="Where the server has another of the name or number: leave it, replace it, or restore beside."
        ),
    ] = "skip",
    as_json: Annotated[bool, typer.Option("--json", help="For scripts; with what was there already.")] = False,
) -> None:
    """Brings a backup to the MLflow in use, empty or not. Again, also after a kill, it adds only what is missing.

    Examples:

      fingers restore backup.zip --dry-run

      MLFLOW_TRACKING_URI=http://127.0.0.1:5001 fingers restore backup.zip
    """
    from ops.backup.restore import restore as restored  # noqa: PLC0415
    from stages.mlflow_client import tracking_uri  # noqa: PLC0415

    steps = restored(file, tracking_uri(), on_conflict, dry_run=dry_run)
    rows = [{"do": s.verb, "what": s.kind, "name": s.name, "why": s.why} for s in steps if as_json or s.verb != "keep"]
    show(rows, as_json=as_json, empty="everything is there already")
