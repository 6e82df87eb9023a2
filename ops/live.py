"""Runs in progress, told again and again -> a table that keeps itself up to date, or a line an epoch."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from ops.runs import Progress


def follow(snapshots: Iterator[list[Progress]]) -> None:
    """To the end of snapshots, or until Ctrl-C, which is how one leaves."""
    with suppress(KeyboardInterrupt):
        if sys.stdout.isatty():
            _keep_showing(snapshots)
        else:
            for line in lines(snapshots):
                sys.stdout.write(f"{line}\n")
                sys.stdout.flush()


def _keep_showing(snapshots: Iterator[list[Progress]]) -> None:
    with Live(console=Console(), auto_refresh=False) as live:
        for snapshot in snapshots:
            live.update(table(snapshot), refresh=True)


def table(snapshot: Sequence[Progress]) -> Table | str:
    if not snapshot:
        return "no run is in progress; Ctrl-C ends"
    shown = Table("run", "status", "epoch", "", "mAP50", "best", box=None, pad_edge=False, header_style="bold")
    for now in snapshot:
        done = now.epochs[-1].step if now.epochs else 0
        newest = f"{now.epochs[-1].value:.4f}" if now.epochs else "-"
        best = f"{now.best_map50:.4f}" if now.epochs else "-"
        bar = ProgressBar(total=now.asked or done or 1, completed=done, width=30)
        shown.add_row(escape(now.run.name), now.condition, f"{done}/{now.asked or '?'}", bar, newest, best)
    return shown


def lines(snapshots: Iterator[list[Progress]]) -> Iterator[str]:
    """What is new in each: epochs, the first time all there are, and ends."""
    told: dict[str, int] = {}
    ended: set[str] = set()
    for snapshot in snapshots:
        for now in snapshot:
            run = now.run
            for point in now.epochs:
                if point.step > told.get(run.id, 0):
                    told[run.id] = point.step
                    yield f"{run.name}: epoch {point.step} of {now.asked or '?'}, mAP50 {point.value:.4f}"
            if now.condition != "running" and run.id not in ended:
                ended.add(run.id)
                yield f"{run.name}: {now.condition}"
