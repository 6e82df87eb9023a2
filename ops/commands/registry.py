"""`fingers models`, `runs`, `compare` and others: registered versions, and the trainings that they come from."""

import logging
from dataclasses import asdict
from typing import Annotated, Literal

import typer

from ops.commands.options import AsJson, ModelName
from ops.repository import repository
from ops.show import show

logger = logging.getLogger("ops")

app = typer.Typer()
PANEL = "Models and runs"


@app.command(rich_help_panel=PANEL)
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


@app.command(rich_help_panel=PANEL)
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


@app.command(rich_help_panel=PANEL)
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


@app.command(rich_help_panel=PANEL)
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


@app.command(rich_help_panel=PANEL)
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


@app.command(rich_help_panel=PANEL)
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
    as_json: AsJson = False,
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


@app.command(rich_help_panel=PANEL)
def sweep(
    values: Annotated[list[str], typer.Argument(metavar="KEY=VALUES", help="1,2,3, range(1,4), uniform(LOW,HIGH).")],
    trials: Annotated[int, typer.Option(min=1, help="Drawings from uniform and loguniform.")] = 1,
    at_once: Annotated[int, typer.Option(min=0, help="No more trials at a time; 0: as the cluster has room.")] = 0,
    cpus: Annotated[int, typer.Option(min=1, help="For each trial; its train.threads.")] = 1,
    gpus: Annotated[int, typer.Option(min=0, max=1, help="For each trial.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn.")] = 0,
    name: Annotated[str, typer.Option(help="With which the experiments' names begin.")] = "sweep",
    as_json: AsJson = False,
) -> None:
    """Trains with each combination of values, on the Ray cluster of RAY_ADDRESS; best first. Exit 1 if one failed.

    Each is a DVC experiment of this repository, from its last commit, and one run in MLflow. Killed and started again,
    it goes on: what was tried is not tried again. docs/scale.md has the cluster.

    Examples:

      fingers sweep train.seed=1,2,3

      fingers sweep train.optimizer=AdamW '+train.ultralytics.lr0=loguniform(0.0005,0.01)' --trials 20

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
