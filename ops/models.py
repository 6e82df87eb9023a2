"""The registered model -> its versions as rows; and the alias champion, moved on and back."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from stages.params import PARAMS_FILE, StageError, load_params
from stages.registry import Promotion, Registry, Version
from stages.release import Release


def open_registry(root: Path, name: str | None = None) -> Registry:
    """Of the model with that name, or else that of DEFAULT_MODEL_NAME, or of params.yaml in root."""
    usual = os.environ.get("DEFAULT_MODEL_NAME")
    return Registry(name or usual or load_params(root / PARAMS_FILE).register_.model_name)


@dataclass(frozen=True)
class Listed:
    """A version as a list shows it. None: registered without it."""

    version: str
    aliases: list[str]
    created: str  # UTC, ISO 8601
    gates: str | None
    map50: float | None
    count_accuracy: float | None
    count_accuracy_low: float | None
    count_accuracy_high: float | None
    sha256: str
    git: str | None
    data: str | None
    lock: str | None
    run_id: str


def listed(registry: Registry) -> list[Listed]:
    """Newest first."""
    aliases = registry.aliases()
    return [as_listed(version, aliases) for version in registry.versions()]


def as_listed(version: Version, aliases: dict[str, str]) -> Listed:
    def number(tag: str) -> float | None:
        return float(version.tags[tag]) if tag in version.tags else None

    return Listed(
        version=version.number,
        aliases=[alias for alias, its_version in aliases.items() if its_version == version.number],
        created=datetime.fromtimestamp(version.created / 1000, UTC).isoformat(timespec="seconds"),
        gates=version.tags.get("gates"),
        map50=number("map50"),
        count_accuracy=number("count_accuracy"),
        count_accuracy_low=number("count_accuracy_low"),
        count_accuracy_high=number("count_accuracy_high"),
        sha256=version.sha256,
        git=version.tags.get("git"),
        data=version.tags.get("data"),
        lock=version.tags.get("lock"),
        run_id=version.run_id,
    )


@dataclass(frozen=True)
class Change:
    """version is champion now; before: who was until now, version itself when nothing had to change."""

    version: str
    before: str | None

    def __str__(self) -> str:
        if self.before == self.version:
            return f"version {self.version} is champion already"
        return f"version {self.version} is champion; before: {f'version {self.before}' if self.before else 'none'}"


def promote(registry: Registry, reference: str, *, force: bool) -> Change:
    """Raises StageError when the files are not as registered, and, without force, for a version that failed gates."""
    version = registry.find(reference)
    gates = released(registry, version).gates
    if not gates.passed and not force:
        failures = "; ".join(failure.text for failure in gates.failures)
        raise StageError(
            f"{registry.name} version {version.number} failed its gates: {failures}; "
            f"fingers promote {version.number} --force makes it champion all the same"
        )
    return crown(registry, version, "promote" if gates.passed else "promote --force")


def rollback(registry: Registry) -> Change:
    """To the champion before the present one; again, to the one before that.

    Raises StageError when there is none, or its files are not as registered.
    """
    present = registry.with_alias("champion")
    there = {version.number: version for version in registry.versions()}
    earlier = [
        there[number]
        for number in champions(registry.promotions(), present.number if present else None)
        if number in there and there[number] != present
    ]
    if not earlier:
        who = f"version {present.number} is the first champion on record" if present else "no champion is on record"
        raise StageError(f"{registry.name}: {who}; fingers promote VERSION takes any")
    released(registry, earlier[-1])
    return crown(registry, earlier[-1], "rollback")


def champions(promotions: Iterable[Promotion], present: str | None) -> list[str]:
    """promotions, oldest first -> the champions that a rollback goes back through, the present one last.

    A promotion adds to them, a rollback takes away. A champion that no command of ours made (an alias set in MLflow's
    pages) is known from what replaced it.
    """
    stack: list[str] = []
    for promotion in promotions:
        if promotion.before is not None:
            stack = back_to(promotion.before, stack)
        stack = back_to(promotion.version, stack) if promotion.command == "rollback" else [*stack, promotion.version]
    return stack if present is None else back_to(present, stack)


def back_to(number: str, stack: list[str]) -> list[str]:
    """stack up to where number was last; or with number on top, if it is not in it."""
    if number not in stack:
        return [*stack, number]
    return stack[: len(stack) - stack[::-1].index(number)]


def released(registry: Registry, version: Version) -> Release:
    """Raises StageError when its files cannot be fetched, or are not those that were registered."""
    with TemporaryDirectory() as folder:
        return registry.download(version, Path(folder) / "model")


def crown(registry: Registry, version: Version, command: str) -> Change:
    before = registry.with_alias("champion")
    registry.set_alias("champion", version, command)
    return Change(version.number, before.number if before else None)
