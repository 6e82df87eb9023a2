"""`fingers picsellia check` and `push-hard`: the annotation platform."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ops.commands.options import AsJson, ModelName
from ops.repository import repository
from ops.show import show

app = typer.Typer(help="The annotation platform that params.yaml names.", no_args_is_help=True)


@app.command()
def check(as_json: AsJson = False) -> None:
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


@app.command()
def push_hard(
    folder: Annotated[Path, typer.Argument(help="Pictures that nobody has annotated, in it or below.")],
    version: Annotated[str, typer.Option(help="The name of the new dataset version; it must be free.")],
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=500, help="No more than these.")] = 50,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Lists the pictures, and sends nothing.")] = False,
    name: ModelName = None,
    as_json: AsJson = False,
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
