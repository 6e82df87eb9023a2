"""Versions, runs, traces and comparisons -> rows as a person reads them: short hashes, local times, intervals."""

from collections.abc import Sequence
from datetime import datetime

from ops import models, runs
from ops.comparison import Compared
from ops.show import Row
from ops.trace import Trace
from stages.registry import Promotion


def of_versions(versions: Sequence[models.Listed]) -> list[Row]:
    return [
        {
            "version": version.version,
            "aliases": ", ".join(version.aliases) or None,
            "created": local(version.created),
            "gates": version.gates,
            "mAP50": version.map50,
            "count accuracy": interval(version.count_accuracy, version.count_accuracy_low, version.count_accuracy_high),
            "sha256": short(version.sha256),
            "git": short(version.git),
            "run": short(version.run_id),
        }
        for version in versions
    ]


def of_promotions(promotions: Sequence[Promotion]) -> list[Row]:
    return [
        {"when": local(one.at), "champion": one.version, "before": one.before, "by": one.by, "command": one.command}
        for one in promotions
    ]


def of_runs(listed: Sequence[runs.Listed]) -> list[Row]:
    return [
        {
            "run": run.name,
            "status": run.status,
            "started": local(run.started),
            "took": duration(run.seconds),
            "epochs": f"{run.epochs}/{'?' if run.of_epochs is None else run.of_epochs}",
            "best mAP50": run.best_map50,
            "test mAP50": run.test_map50,
            "count accuracy": run.count_accuracy,
            "version": run.version,
            "experiment": run.experiment,
            "id": short(run.run_id),
        }
        for run in listed
    ]


def of_trace(trace: Trace) -> list[Row]:
    facts = {
        "version": f"{trace.model} {trace.version}",
        "sha256": trace.sha256,
        "run": trace.run_id,
        "data/yolo": trace.data,
        "dvc.lock": trace.lock,
        "git": trace.git,
        "commit": trace.commit,
    }
    facts_and_checks = [*facts.items(), *(("ok" if check.holds else "but", check.text) for check in trace.checks)]
    return [{"of": name, "is": text} for name, text in facts_and_checks]


def of_scores(compared: Compared) -> list[Row]:
    """Those of the whole, and of the classes that differ."""
    return [
        {
            "score": score.name,
            compared.a: decimals(score.a),
            compared.b: decimals(score.b),
            "difference": decimals(score.difference, "+"),
        }
        for score in compared.scores
        if "/" not in score.name or score.difference != 0
    ]


def of_params(compared: Compared) -> list[Row]:
    return [{"parameter": one.name, compared.a: one.a, compared.b: one.b} for one in compared.params]


def of_pictures(compared: Compared, limit: int) -> list[Row]:
    differing = compared.on_pictures.differing if compared.on_pictures else []
    return [
        {"picture": one.id, "fingers": one.truth, compared.a: one.a, compared.b: one.b} for one in differing[:limit]
    ]


def on_pictures(compared: Compared) -> str:
    on = compared.on_pictures
    if on is None:
        return f"not compared on pictures: {compared.why_not}"
    return (
        f"on the {on.pictures} test pictures here: count accuracy {on.a_accuracy:.4f} ({compared.a}), "
        f"{on.b_accuracy:.4f} ({compared.b}); difference {on.difference:+.4f}, "
        f"95 % interval {on.low:+.4f} to {on.high:+.4f}; {len(on.differing)} counted differently"
    )


def interval(value: float | None, low: float | None, high: float | None) -> str | None:
    if value is None or low is None or high is None:
        return None
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def local(time: str) -> str:
    """An ISO 8601 time in the reader's own zone, to the minute."""
    return f"{datetime.fromisoformat(time).astimezone():%Y-%m-%d %H:%M}"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def short(text: str | None) -> str | None:
    """Enough of a hash or an id to find it by."""
    return text[:10] if text else None


def decimals(value: float | None, sign: str = "") -> str | None:
    return None if value is None else f"{value:{sign}.4f}"
