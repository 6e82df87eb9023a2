"""`fingers`: everything that is not DVC, as commands of one program."""

import json
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ops.dotenv import read_dotenv
from ops.show import show
from stages.launch import configure_logging
from stages.params import StageError

if TYPE_CHECKING:
    from ops.bucket import Folder
    from ops.parts import Task

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


@app.command(rich_help_panel="Servers")
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


@app.command(rich_help_panel="Servers")
def up(as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False) -> None:
    """Starts S3, PostgreSQL and MLflow here, for this machine alone; writes where, and the keys, into .env.

    Again, it starts what does not run. Ports: FINGERS_S3_PORT (9000) and FINGERS_MLFLOW_PORT (5000), in .env.

    Examples:

      fingers up

      fingers up && dvc push
    """
    from ops import stack  # noqa: PLC0415

    show([asdict(row) for row in stack.up(repository(), os.environ)], as_json=as_json, empty="")


@app.command(rich_help_panel="Servers")
def down() -> None:
    """Stops the servers that `fingers up` started; what they hold stays.

    Examples:

      fingers down
    """
    from ops import stack  # noqa: PLC0415

    stopped = stack.down(repository())
    logger.info("stopped: %s", ", ".join(stopped) or "none ran")


@app.command(rich_help_panel="Servers")
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


@app.command(rich_help_panel="Servers")
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


@app.command(rich_help_panel="Servers")
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


ModelName = Annotated[str | None, typer.Option(help="Of the registered model, in place of the usual one.")]


@app.command(rich_help_panel="Servers")
def serve(
    port: Annotated[int | None, typer.Option(help="Instead of PORT, or 8000.")] = None,
    device: Annotated[str | None, typer.Option(help="Instead of SERVE_DEVICE: auto, cpu, cuda, tensorrt.")] = None,
) -> None:
    """Answer HTTP: count fingers in pictures, faces hidden first. Ctrl-C ends it.

    With MLFLOW_TRACKING_URI set it serves the registry's champion, else models/release.json. All settings are in
    .env.example; http://127.0.0.1:8000/docs says what it answers.

    Examples: fingers serve;  curl -F file=@hand.jpg http://127.0.0.1:8000/predict
    """
    from serve.server import serve as run  # noqa: PLC0415
    from serve.settings import read_settings  # noqa: PLC0415

    given = {"PORT": port, "SERVE_DEVICE": device}
    settings = read_settings({**os.environ, **{name: str(value) for name, value in given.items() if value is not None}})
    raise typer.Exit(run(settings))


OnRay = Annotated[
    bool, typer.Option("--ray", help="On the Ray cluster of RAY_ADDRESS: from a folder on S3 into another, --out.")
]


@app.command(rich_help_panel="Models and runs")
def predict(  # noqa: PLR0913, PLR0917 -- options, each with its name
    what: Annotated[
        list[str], typer.Argument(help="Pictures and folders; or one video; or camera, camera:1; or s3://… with --ray.")
    ],
    url: Annotated[str | None, typer.Option(help="Of a server, which counts in place of this machine.")] = None,
    key_file: Annotated[
        Path | None, typer.Option(envvar="API_KEY_FILE", help="Holds the server's key; or API_KEY has it.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="A version: a number, an alias; of a server, one loaded.")] = None,
    out: Annotated[str | None, typer.Option(help="JSONL; if left out, NAME.jsonl for a folder or a video.")] = None,
    save: Annotated[Path | None, typer.Option(help="A folder for the pictures, faces hidden, hands boxed.")] = None,
    every: Annotated[int, typer.Option(min=1, help="Of a video: only each so many-th frame.")] = 1,
    ray: OnRay = False,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Counts fingers in pictures, in a video, or before a camera; faces are hidden first. Exit 1 if a picture failed.

    Killed and started again with a folder, it goes on: what --out has is done again only where it failed, or where the
    picture or the model changed. Of a video, each frame's count stands beside one smoothed over 0.5 s.

    Examples:

      fingers predict hand.jpg

      fingers predict photos/ --out results.jsonl --save boxed/

      fingers predict clip.mp4 --every 2

      fingers predict camera --url http://127.0.0.1:8000

      fingers predict s3://camera/2026 --ray --out s3://counted/2026
    """
    if ray:
        if url or save or every > 1:
            raise typer.BadParameter("--url, --save, --every are for one machine; leave them out", param_hint="--ray")
        on_ray(what, out, lambda parts, _: parts.counting(model), as_json=as_json)
        return
    from ops import footage  # noqa: PLC0415
    from ops import predict as pictures  # noqa: PLC0415
    from ops.counter import counter_of  # noqa: PLC0415

    refuse_s3(*what, out)
    paths, into = [Path(one) for one in what], Path(out) if out else None
    camera, video = footage.camera_in(paths), footage.video_in(paths)
    found = {} if video or camera is not None else pictures.pictures_in(paths, save)
    seen: Sequence[footage.Result | pictures.Result]
    with counter_of(url, key_file, model) as counter:
        if camera is not None:
            footage.watch(camera, counter)
            return
        if video:
            seen = frames = footage.count(video, counter, into or footage.default_out(video), save, every)
            rows = footage.stretches(frames)
        else:
            into = into or pictures.default_out(paths)
            seen = counted = pictures.count(found, counter, into, save)
            rows = pictures.rows([one for one in counted if one.error] if into else counted)
    told = f"{into}: {len(seen)} pictures, each with an answer"
    show([one.model_dump(exclude_none=True) for one in seen] if as_json else rows, as_json=as_json, empty=told)
    if any(one.error for one in seen):
        raise typer.Exit(1)


def on_ray(
    what: Sequence[str], out: str | None, task: Callable[[ModuleType, "Folder"], "Task"], *, as_json: bool
) -> None:
    """Exit 1 if a picture failed. task: of ops.parts, and the folder that it may write to."""
    from ops.bucket import Folder  # noqa: PLC0415
    from stages.nodes import connected  # noqa: PLC0415

    if len(what) != 1 or not out:
        raise typer.BadParameter("give one s3://BUCKET/FOLDER, and another as --out", param_hint="--ray")
    source, into = Folder.at(what[0]), Folder.at(out)
    with connected():
        from ops import parts  # noqa: PLC0415 -- Ray is an extra, and this imports it

        totals = parts.work_off(source, into, task(parts, into))
    show([asdict(totals)], as_json=as_json, empty="")
    if totals.failed:
        raise typer.Exit(1)


def refuse_s3(*paths: str | None) -> None:
    if any(path and path.startswith("s3://") for path in paths):
        raise typer.BadParameter("folders on S3 are looked at by a Ray cluster; add --ray", param_hint="s3://")


@app.command(rich_help_panel="Models and runs")
def models(
    reference: Annotated[
        str | None, typer.Argument(metavar="VERSION", help="A number, an alias, Staging or Production.")
    ] = None,
    history: Annotated[bool, typer.Option("--history", help="Who became champion when, and by whom.")] = False,
    name: ModelName = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts, with the whole lineage.")] = False,
) -> None:
    """Lists the versions of the registered model, newest first; or shows one, with its model card.

    Examples:

      fingers models

      fingers models champion

      fingers models --history
    """
    from ops import rows  # noqa: PLC0415
    from ops.models import as_listed, listed, open_registry  # noqa: PLC0415

    if reference and history:
        raise typer.BadParameter("--history is that of the whole model; leave VERSION out")
    registry = open_registry(repository(), name)
    if history:
        promotions = registry.promotions()
        told = [one.model_dump() for one in promotions] if as_json else rows.of_promotions(promotions)
        show(told, as_json=as_json, empty=f"{registry.name} has had no champion yet")
    elif reference:
        version = registry.find(reference)
        one, card = as_listed(version, registry.aliases()), registry.card(version)
        show([{**asdict(one), "card": card}] if as_json else rows.of_versions([one]), as_json=as_json, empty="")
        typer.echo("" if as_json else f"\n{card}", nl=False)
    else:
        found = listed(registry)
        told = [asdict(one) for one in found] if as_json else rows.of_versions(found)
        show(
            told,
            as_json=as_json,
            empty=f"{registry.name} has no version on this server yet: dvc repro -sf register",
        )


@app.command(rich_help_panel="Models and runs")
def promote(
    reference: Annotated[str, typer.Argument(metavar="VERSION", help="A number, challenger, or Staging.")],
    force: Annotated[bool, typer.Option("--force", help="Also a version that failed its gates.")] = False,
    name: ModelName = None,
) -> None:
    """Makes a version champion, and keeps on record who did so; not one that failed its gates, or whose file changed.

    Examples:

      fingers promote 7

      fingers promote challenger --force
    """
    from ops import models as registered  # noqa: PLC0415

    registry = registered.open_registry(repository(), name)
    logger.info("%s: %s", registry.name, registered.promote(registry, reference, force=force))


@app.command(rich_help_panel="Models and runs")
def rollback(
    name: ModelName = None,
) -> None:
    """Makes the previous champion champion again; once more, the one before that. Its file is checked first.

    Examples:

      fingers rollback
    """
    from ops import models as registered  # noqa: PLC0415

    registry = registered.open_registry(repository(), name)
    logger.info("%s: %s", registry.name, registered.rollback(registry))


@app.command(rich_help_panel="Models and runs")
def trace(
    reference: Annotated[
        str | None, typer.Argument(metavar="VERSION", help="A number, an alias, Staging or Production.")
    ] = None,
    sha256: Annotated[str, typer.Option(help="Of the detector file: its versions. The beginning will do.")] = "",
    git: Annotated[str, typer.Option(help="A revision: its versions.")] = "",
    run: Annotated[str, typer.Option(help="A run's id: its versions.")] = "",
    name: ModelName = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts, with all parameters.")] = False,
) -> None:
    """Tells what a version came from, whether that is still at hand, and the commands that make it again.

    Examples:

      fingers trace champion

      fingers trace --sha256 96ab1f

      fingers trace --git main --json
    """
    from ops import rows  # noqa: PLC0415
    from ops.models import open_registry  # noqa: PLC0415
    from ops.trace import matching  # noqa: PLC0415
    from ops.trace import trace as traced  # noqa: PLC0415
    from stages.runs import Runs  # noqa: PLC0415

    if sum(map(bool, (reference, sha256, git, run))) != 1:
        raise typer.BadParameter("give a VERSION, or one of --sha256, --git, --run")
    root = repository()
    registry = open_registry(root, name)
    versions = [registry.find(reference)] if reference else matching(registry, root, sha256=sha256, git=git, run=run)
    traces = [traced(registry, Runs(), root, version) for version in versions]
    if as_json:
        show([asdict(one) for one in traces], as_json=True, empty="")
        return
    for one in traces:
        show(rows.of_trace(one), as_json=False, empty="")
        typer.echo("".join(f"\n    {command}" for command in one.commands) + "\n")


@app.command(rich_help_panel="Models and runs")
def sweep(
    values: Annotated[list[str], typer.Argument(metavar="KEY=VALUES", help="1,2,3, range(1,4), uniform(LOW,HIGH).")],
    trials: Annotated[int, typer.Option(min=1, help="Drawings from uniform and loguniform.")] = 1,
    at_once: Annotated[int, typer.Option(min=0, help="No more trials at a time; 0: as the cluster has room.")] = 0,
    cpus: Annotated[int, typer.Option(min=1, help="For each trial; its train.threads.")] = 1,
    gpus: Annotated[int, typer.Option(min=0, max=1, help="For each trial.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn.")] = 0,
    name: Annotated[str, typer.Option(help="With which the experiments' names begin.")] = "sweep",
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Trains with each combination of values, on the Ray cluster of RAY_ADDRESS; best first. Exit 1 if one failed.

    Each is a DVC experiment of this repository, from its last commit, and one run in MLflow. Killed and started again,
    it goes on: what was tried is not tried again. docs/scale.md has the cluster.

    Examples:

      fingers sweep train.seed=1,2,3

      fingers sweep 'train.ultralytics.lr0=loguniform(0.0005,0.01)' --trials 20 --cpus 4

      dvc exp show && dvc exp apply sweep-1f0c9a3e
    """
    from stages.nodes import connected  # noqa: PLC0415

    with connected():
        from ops.sweep import Wish  # noqa: PLC0415 -- Ray is an extra, and this imports it
        from ops.sweep import sweep as swept  # noqa: PLC0415

        rows = swept(Wish(values, trials, at_once, cpus, gpus, seed, name))
    show(rows, as_json=as_json, empty="")
    if any(row["count_accuracy"] is None for row in rows):
        raise typer.Exit(1)


@app.command(rich_help_panel="Models and runs")
def runs(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="No more than these.")] = 20,
    status: Annotated[
        Literal["running", "finished", "failed", "killed"] | None, typer.Option(help="Only these.")
    ] = None,
    sort: Annotated[
        Literal["started", "seconds", "best_map50", "test_map50", "count_accuracy"],
        typer.Option(help="Highest first; all runs are read for any but started."),
    ] = "started",
    watch: Annotated[bool, typer.Option("--watch", help="Follow those in progress, epoch by epoch.")] = False,
    until_done: Annotated[bool, typer.Option(help="With --watch: end when none is in progress.")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="With --watch: seconds between two looks.")] = 2.0,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Lists the runs of the experiment, newest first; or follows those in progress until Ctrl-C.

    A run that is interrupted was killed on this machine, and goes on with the next dvc repro; of one that is silent
    no epoch has come for long, from a machine that cannot be asked.

    Examples:

      fingers runs --sort count_accuracy --limit 5

      fingers runs --watch

      dvc exp run && fingers runs --limit 1 --json
    """
    from ops import rows  # noqa: PLC0415
    from ops import runs as tracked  # noqa: PLC0415
    from ops.live import follow  # noqa: PLC0415
    from stages.runs import Runs  # noqa: PLC0415

    if watch:
        follow(tracked.watch(every, until_done))
        return
    found = tracked.listed(Runs(), limit, status, sort)
    show([asdict(row) for row in found] if as_json else rows.of_runs(found), as_json=as_json, empty="no run yet")


@app.command(rich_help_panel="Models and runs")
def compare(
    a: Annotated[str, typer.Argument(help="A version's number, alias or stage; or a run's id or name.")],
    b: Annotated[str, typer.Argument(help="The other.")],
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="Of the pictures counted differently.")] = 20,
    name: ModelName = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts, with all pictures.")] = False,
) -> None:
    """Sets two versions or runs side by side: scores, parameters that differ, and what both count on the test pictures.

    Classes with equal scores are left out but for --json.

    Examples:

      fingers compare champion challenger

      fingers compare 3 lively-hog-12 --json
    """
    from ops import rows  # noqa: PLC0415
    from ops.comparison import compared  # noqa: PLC0415
    from ops.models import open_registry  # noqa: PLC0415
    from stages.runs import Runs  # noqa: PLC0415

    root = repository()
    found = compared(open_registry(root, name), Runs(), root, a, b)
    if as_json:
        show([asdict(found)], as_json=True, empty="")
        return
    show(rows.of_scores(found), as_json=False, empty="no scores")
    typer.echo()
    show(rows.of_params(found), as_json=False, empty="the parameters are the same")
    typer.echo(f"\n{rows.on_pictures(found)}\n")
    if found.on_pictures:
        show(rows.of_pictures(found, limit), as_json=False, empty="every picture is counted alike")


@app.command(rich_help_panel="Backup")
def backup(
    path: Annotated[Path | None, typer.Argument(help="A .zip, or a folder for one with the date in its name.")] = None,
    every: Annotated[str | None, typer.Option(help="Goes on for ever, at this interval: 24h, 30m, 7d.")] = None,
    keep: Annotated[int | None, typer.Option(min=1, help="Deletes all but so many of the dated ones.")] = None,
    with_cache: Annotated[
        list[str] | None, typer.Option(metavar="REV", help="With the DVC cache of this git revision; repeatable.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
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


@app.command(rich_help_panel="Backup")
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


@app.command(rich_help_panel="Privacy")
def audit(
    path: Annotated[str, typer.Argument(help="A picture, a video, or a folder of them; or s3://… with --ray.")],
    out: Annotated[str, typer.Option(help="A new folder, for the copies and report.json.")],
    boxes: Annotated[
        Path | None,
        typer.Option(help='True faces: {"a.jpg": {"faces": [[x_centre, y_centre, width, height], …]}}, fractions.'),
    ] = None,
    ray: OnRay = False,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts: what report.json holds.")] = False,
) -> None:
    """Hides faces as params.yaml says, in copies, for a person to check; exit 1 if a file is unreadable.

    With --boxes it tells how many of those faces are hidden, 90 % of the box or more, and lists the others. A video
    becomes an MP4 of its frames, without sound.

    Examples:

      fingers audit ~/camera --out checked

      fingers audit clip.mp4 --out checked --json

      fingers audit faces/images --boxes faces/faces.json --out checked

      fingers audit s3://camera/2026 --ray --out s3://checked/2026
    """
    from ops import audit as audits  # noqa: PLC0415
    from stages.params import PARAMS_FILE, load_params  # noqa: PLC0415

    faces = load_params(repository() / PARAMS_FILE).faces
    if ray:
        if boxes:
            raise typer.BadParameter("--boxes is for one machine; leave it out", param_hint="--ray")
        on_ray([path], out, lambda parts, into: parts.hiding(faces, into), as_json=as_json)
        return
    refuse_s3(path, out)
    done = audits.audit(Path(path), Path(out), faces, boxes)
    if as_json:
        typer.echo(json.dumps(done.report(), indent=1, ensure_ascii=False))
    else:
        show(audits.rows(done), as_json=False, empty="")
        if done.misses:
            typer.echo("\nmissed:")
            show([asdict(miss) for miss in done.misses], as_json=False, empty="")
    logger.info("%s: %s", out, audits.in_words(done))
    if done.problems():
        raise typer.Exit(1)


picsellia = typer.Typer(help="The annotation platform that params.yaml names.", no_args_is_help=True)
app.add_typer(picsellia, name="picsellia")


@picsellia.command()
def check(as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False) -> None:
    """Tells whose token it is, and what the dataset version that params.yaml names holds.

    Examples:

      fingers picsellia check

      PICSELLIA_TOKEN_FILE=~/.picsellia fingers picsellia check --json
    """
    from ops.picsellia import check as checked  # noqa: PLC0415
    from stages.params import PARAMS_FILE, load_params  # noqa: PLC0415

    found = checked(load_params(repository() / PARAMS_FILE).pull.picsellia)
    row = asdict(found) | ({} if as_json else {"labels": ", ".join(found.labels)})
    show([row], as_json=as_json, empty="")


@picsellia.command()
def push_hard(
    folder: Annotated[Path, typer.Argument(help="Pictures that nobody has annotated, in it or below.")],
    version: Annotated[str, typer.Option(help="The name of the new dataset version; it must be free.")],
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=500, help="No more than these.")] = 50,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Lists the pictures, and sends nothing.")] = False,
    name: ModelName = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Sends the pictures that the champion is least sure of to Picsellia, faces hidden, as a new dataset version.

    It holds all of the version that params.yaml names, with its annotations, and the new ones to annotate, which carry
    the tag `hard` in the datalake. Again, also after a kill, it sends only what is missing.

    Examples:

      fingers picsellia push-hard ~/camera --version v2 --dry-run

      fingers picsellia push-hard ~/camera --version v2 --count 100
    """
    from ops.hard_pictures import offer  # noqa: PLC0415
    from ops.models import open_registry  # noqa: PLC0415
    from stages.params import PARAMS_FILE, load_params  # noqa: PLC0415

    root = repository()
    params = load_params(root / PARAMS_FILE)
    offered = offer(folder, count, version, open_registry(root, name), params, dry_run=dry_run)
    show([asdict(picture) for picture in offered], as_json=as_json, empty="")
