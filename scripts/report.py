"""Main's results and this checkout's -> a pull request's comment: scores, charts that GitHub draws from text, tables.

python scripts/report.py REVISION EPOCHS    main, as a commit with its results; its epochs.csv, if it was trained here
"""

import csv
import json
import math
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

METRICS = "models/evaluate/metrics.json"
EPOCHS = "models/train/epochs.csv"
SCORES = {"count_accuracy": "count accuracy", "map50": "mAP50", "map50_95": "mAP50-95"}
CURVES = {"map50_95": "val mAP50-95", "val_cls_loss": "val loss of classes"}
COLOURS = "---\nconfig: {themeVariables: {xyChart: {plotColorPalette: '#0969da, #bc4c00'}}}\n---"  # blue, then orange


@dataclass(frozen=True)
class Results:
    """metrics.json; and each of CURVES, a value an epoch, where a training ran."""

    metrics: Mapping[str, Any]
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)


def main() -> None:
    revision, epochs = sys.argv[1:]
    before = Results(json.loads(said("git", "show", f"{revision}:{METRICS}")), curves(Path(epochs)))
    after = Results(json.loads(Path(METRICS).read_text(encoding="utf-8")), curves(Path(EPOCHS)))
    tables = [said("dvc", kind, "diff", revision, "--md") for kind in ("params", "metrics")]
    sys.stdout.write(report(after, before, behind(json.loads(said("dvc", "status", "--json"))), tables))


def said(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def curves(file: Path) -> dict[str, list[float]]:
    rows = list(csv.DictReader(file.read_text(encoding="utf-8").splitlines())) if file.exists() else []
    return {name: [float(row[name]) for row in rows] for name in CURVES} if rows else {}


def behind(status: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Stages that have other parameters or code than dvc.lock says. Data that are not on this machine do not count."""
    return [stage for stage, changes in status.items() if any(map(is_newer, changes))]


def is_newer(change: Mapping[str, Any]) -> bool:
    deps = change.get("changed deps", {}).items()
    return any(state != "deleted" for name, state in deps if name != "data/sources")


def report(after: Results, before: Results, behind: Sequence[str], tables: Sequence[str]) -> str:
    how = "both trained on this runner" if after.curves else "each as committed: no runner has the pictures"
    scores = [f"| {title} | {score(before, name)} | {score(after, name)} |" for name, title in SCORES.items()]
    parts = [
        f"Main and this branch, {how}.",
        f"**Changed since dvc.lock was written, so not in these scores: {', '.join(behind)}.**" if behind else "",
        "\n".join(["| | main | here |", "|---|---|---|", *scores]),
        *(curve(title, after.curves.get(name, ()), before.curves.get(name, ())) for name, title in CURVES.items()),
        bars(after.metrics["classes"], before.metrics["classes"]),
        "<details><summary>Each parameter and score that differs</summary>",
        *tables,
        "</details>",
    ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def score(side: Results, name: str) -> str:
    low, high = (side.metrics.get(f"{name}_{end}") for end in ("low", "high"))
    return f"{side.metrics[name]:.3f}" + (f" ({low:.3f} to {high:.3f})" if low is not None else "")


def curve(title: str, after: Sequence[float], before: Sequence[float]) -> str:
    """Where one training ended sooner, its line goes on level. Empty when there is no line to draw."""
    epochs = max(len(after), len(before))
    if min(len(after), len(before)) < 2 or not all(map(math.isfinite, (*after, *before))):
        return ""
    lines = [("line", [*side, *[side[-1]] * (epochs - len(side))]) for side in (after, before)]
    top = max(1.0, *after, *before)
    return chart(f"{title}: blue here, orange main", f'"epoch" 1 --> {epochs}', top, lines)


def bars(after: Mapping[str, Any], before: Mapping[str, Any]) -> str:
    """Of classes that both sides have in their test pictures."""
    names = [name for name in after if all(side.get(name, {}).get("ap50") is not None for side in (after, before))]
    axis = ", ".join('"{}"'.format(name.replace('"', "'")) for name in names)
    sides = zip(("bar", "line"), ([side[name]["ap50"] for name in names] for side in (after, before)), strict=True)
    return chart("AP50 by class: bars here, line main", f"[{axis}]", 1.0, sides) if names else ""


def chart(title: str, x_axis: str, top: float, sides: Iterable[tuple[str, Sequence[float]]]) -> str:
    drawn = [f"  {kind} [{', '.join(f'{value:.3f}' for value in values)}]" for kind, values in sides]
    axes = [f"  x-axis {x_axis}", f"  y-axis 0 --> {top:.3g}"]
    return "\n".join(["```mermaid", COLOURS, "xychart-beta", f'  title "{title}"', *axes, *drawn, "```"])


if __name__ == "__main__":
    main()
