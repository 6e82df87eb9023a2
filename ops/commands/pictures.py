"""`fingers predict` and `fingers audit`: what is in pictures, here or on a Ray cluster."""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer

from ops.commands.options import AsJson, OnRay
from ops.repository import repository
from ops.show import show

if TYPE_CHECKING:
    from ops.bucket import Folder
    from ops.parts import Task


logger = logging.getLogger("ops")

app = typer.Typer()
PANEL = "Pictures"


@app.command(rich_help_panel=PANEL)
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
    as_json: AsJson = False,
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


@app.command(rich_help_panel=PANEL)
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
