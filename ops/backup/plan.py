"""A backup, and the server as it is -> the list of what a restore does: a dry run is this list, not executed."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from ops.backup.archive import Archive
from ops.backup.cache import missing_objects
from ops.backup.records import DELETED, NO_STAGE, RESTORE_STATE, Experiment, Model, Place, Run, Version, own_tags
from ops.backup.store import Store
from stages.params import StageError

OnConflict = Literal["skip", "overwrite", "copy"]
Kind = Literal["experiment", "run", "model", "version", "alias", "cache"]
Verb = Literal[
    "create",
    "finish",  # what a killed restore left half-way
    "update",  # tags, description, stage, or where an alias points
    "undelete",
    "delete",
    "keep",  # it is there already
    "skip",  # the server has another: a conflict
    "omit",  # it cannot be restored there
]
WIDEST_GAP = 10_000  # versions deleted in a row; each costs two requests


@dataclass(frozen=True)
class Step:
    verb: Verb
    kind: Kind
    name: str  # on the server; of a run, its id in the backup
    why: str = ""
    source: str = ""  # in the backup: the id of an experiment or run, the folder of a model
    target: str = ""  # on the server: the name of an experiment or model, the id of a run
    number: int = 0  # of a version, in the backup
    there: int = 0  # on the server; of a version to be created, the highest that the server is known to have given
    tags: Mapping[str, str] = field(default_factory=dict)  # an update sets these,
    description: str | None = None  # this,
    stage: str | None = None  # and this; None: it stays as it is


@dataclass(frozen=True)
class Texts:
    """What may differ between the backup and the server."""

    tags: Mapping[str, str]
    description: str = ""
    stage: str = NO_STAGE

    def named(self) -> dict[str, str]:
        """By the name under which a step tells of it; without what is empty."""
        named = {f"tag {key}": text for key, text in self.tags.items()}
        named |= {"description": self.description} if self.description else {}
        return named | ({"stage": self.stage} if self.stage != NO_STAGE else {})


@dataclass
class Plan:
    experiments: list[Step] = field(default_factory=list)
    runs: list[Step] = field(default_factory=list)
    models: list[Step] = field(default_factory=list)
    ends: list[Step] = field(default_factory=list)
    # What is there already
    ids: dict[str, str] = field(default_factory=dict)  # of experiments, by name
    places: dict[str, Place] = field(default_factory=dict)  # of runs, by their id in the backup

    @property
    def steps(self) -> list[Step]:
        return [*self.experiments, *self.runs, *self.models, *self.ends]


def plan(archive: Archive, store: Store, on_conflict: OnConflict, cache: Path | None) -> Plan:
    """Reads only. cache: where DVC objects go, if the archive has any."""
    made = Plan()
    there = {experiment.name: experiment for experiment in store.experiments()}
    made.ids = {name: experiment.id for name, experiment in there.items()}
    planner = _Planner(archive, store, on_conflict, made)
    planner.plan_experiments(there)
    planner.plan_runs(there)
    planner.plan_models()
    if cache and (missing := missing_objects(archive, cache)):
        made.ends.append(Step("create", "cache", str(cache), why=f"{len(missing)} objects", target=str(cache)))
    return made


class _Known(NamedTuple):
    """A run on the server: no more of it, since there may be many."""

    place: Place
    lifecycle: str
    is_half: bool  # restored


@dataclass
class _Planner:
    archive: Archive
    store: Store
    on_conflict: OnConflict
    plan: Plan
    homes: dict[str, str] = field(default_factory=dict)  # an experiment's id in the backup: its name on the server
    runs: set[str] = field(default_factory=set)  # ids in the backup of those that will be there

    def plan_experiments(self, there: Mapping[str, Experiment]) -> None:
        for experiment in self.archive.experiments():
            name = experiment.name
            if self.on_conflict == "copy" and any(s.verb == "skip" for s in self._settled(experiment, there.get(name))):
                name = self._copy_of(name)
            found = there.get(name)
            renamed = experiment.model_copy(update={"name": name})
            steps = list(self._settled(renamed, found))
            self.plan.experiments += steps
            if found is None or found.lifecycle == "active" or any(step.verb == "undelete" for step in steps):
                self.homes[experiment.id] = name
            ours = found is None or found.tags.get(RESTORE_STATE) == DELETED
            if experiment.lifecycle == "deleted" and ours and experiment.id in self.homes:
                self.plan.ends.append(Step("delete", "experiment", name, "as in the backup", target=name))

    def _settled(self, experiment: Experiment, found: Experiment | None) -> Iterator[Step]:
        step = Step("create", "experiment", experiment.name, source=experiment.id, target=experiment.name)
        if found is None:
            yield step
        elif found.lifecycle == "active":
            yield from self._differences(step, Texts(own_tags(experiment.tags)), Texts(found.tags))
        elif experiment.lifecycle == "deleted":
            yield replace(step, verb="keep")
        elif self.on_conflict == "overwrite":
            yield replace(step, verb="undelete")
            yield from self._differences(step, Texts(own_tags(experiment.tags)), Texts(found.tags))
        else:
            yield replace(step, verb="skip", why="deleted there; overwrite would bring it back")

    def plan_runs(self, there: Mapping[str, Experiment]) -> None:
        undeleted = {self.plan.ids[step.target] for step in self.plan.experiments if step.verb == "undelete"}
        known: dict[str, _Known] = {}
        for found in self.store.runs([experiment.id for experiment in there.values()]):
            active = found.lifecycle == "active" or found.experiment_id in undeleted
            if found.origin not in known or known[found.origin].is_half:
                place = Place(found.id, found.artifact_uri)
                known[found.origin] = _Known(
                    place, "active" if active else "deleted", found.is_half_restored and active
                )
        for run in self.archive.runs():
            step = self._run(run, known.get(run.origin))
            self.plan.runs.append(step)
            if step.verb != "omit":
                self.runs.add(run.id)

    def _run(self, run: Run, found: _Known | None) -> Step:
        step = Step("create", "run", run.id, source=run.id, target=self.homes.get(run.experiment_id, ""))
        if found is None:
            return step if step.target else replace(step, verb="omit", why="its experiment is deleted there")
        self.plan.places[run.id] = found.place
        step = replace(step, target=found.place.id)
        if found.is_half:
            return replace(step, verb="finish")
        if found.lifecycle == run.lifecycle:
            return replace(step, verb="keep")
        if self.on_conflict == "overwrite":
            return replace(step, verb="delete" if run.lifecycle == "deleted" else "undelete")
        return replace(step, verb="skip", why=f"{found.lifecycle} there, {run.lifecycle} in the backup")

    def plan_models(self) -> None:
        for folder, model in self.archive.models():
            versions = list(self.archive.versions(folder))
            _refuse_gaps(model, versions)
            found = self.store.model(model.name)
            steps = list(self._model(folder, model, versions, found))
            if found and self.on_conflict == "copy" and any(step.verb == "skip" for step in steps):
                copy = model.model_copy(update={"name": self._copy_of(model.name)})
                steps = list(self._model(folder, copy, versions, self.store.model(copy.name)))
            if found and self.on_conflict == "overwrite" and any(step.verb == "skip" for step in steps):
                lost = ", ".join(str(version.number) for version in found[1])
                gone = Step("delete", "model", model.name, f"with its versions {lost}", target=model.name)
                steps = [gone, *self._model(folder, model, versions, None)]
            self.plan.models += steps

    def _model(
        self, folder: str, model: Model, versions: Sequence[Version], found: tuple[Model, list[Version]] | None
    ) -> Iterator[Step]:
        """found: of the same name on the server."""
        step = Step("create", "model", model.name, source=folder, target=model.name)
        if found is None:
            yield step
        else:
            have = Texts(found[0].tags, found[0].description)
            yield from self._differences(step, Texts(model.tags, model.description), have)
        there = found[1] if found else []
        steps = list(self._versions(folder, model.name, versions, there))
        yield from steps
        for version in there:
            if version.is_placeholder:
                left = replace(step, verb="delete", kind="version", name=f"{model.name} {version.number}")
                yield replace(left, why="left by a killed restore", there=version.number)
        numbers = {step.number: 0 if step.verb == "create" else step.there for step in steps if _is_there_after(step)}
        yield from self._aliases(model, numbers, found[0].aliases if found else {})

    def _versions(
        self, folder: str, name: str, versions: Sequence[Version], there: Sequence[Version]
    ) -> Iterator[Step]:
        """Those first that can have their number; the others get the next free one."""
        ours = {version.origin: version for version in there if not version.is_placeholder}
        taken = {version.number for version in ours.values()}
        highest = max((version.number for version in there), default=0)
        for version in sorted(versions, key=lambda version: (version.number <= highest, version.number)):
            step = Step("create", "version", f"{name} {version.number}", source=folder, target=name)
            step = replace(step, number=version.number, there=highest)
            if found := ours.get(version.origin):
                want = Texts(own_tags(version.tags), version.description, version.stage)
                have = Texts(found.tags, found.description, found.stage)
                yield from self._differences(replace(step, there=found.number), want, have)
            elif version.number in taken:
                yield replace(step, verb="skip", why="another version has this number", there=0)
            elif why := self._has_no_source(folder, version):
                yield replace(step, verb="omit", why=why)
            else:
                why = "its number was deleted there: it gets the next one" if version.number <= highest else ""
                yield replace(step, why=why)

    def _has_no_source(self, folder: str, version: Version) -> str:
        """Why MLflow would not take the version; empty when it does."""
        files = version.path_in_run is not None or any(self.archive.files(f"{folder}/files/{version.number}"))
        if files and version.run_id in self.runs:
            return ""
        kind = urlsplit(version.source).scheme
        on_server = self.store.address.startswith(("http://", "https://"))
        if kind in ("models", "runs") or (on_server and kind in ("", "file", "mlflow-artifacts")):
            return f"its files, {version.source}, are in no run of the backup"
        return ""

    def _aliases(self, model: Model, numbers: Mapping[int, int], there: Mapping[str, int]) -> Iterator[Step]:
        """numbers: of versions, in the backup and on the server, there 0 for one that is still to come."""
        for alias, number in sorted(model.aliases.items()):
            step = Step(
                "create", "alias", f"{model.name}@{alias}", f"version {number}", source=alias, target=model.name
            )
            step = replace(step, number=number)
            if number not in numbers:
                yield replace(step, verb="omit", why=f"version {number} is not there")
            elif alias not in there:
                yield step
            elif there[alias] == numbers[number]:
                yield replace(step, verb="keep")
            elif self.on_conflict == "overwrite":
                yield replace(step, verb="update", why=f"version {number} in place of {there[alias]}")
            else:
                yield replace(step, verb="skip", why=f"points to version {there[alias]}")

    def _differences(self, step: Step, want: Texts, have: Texts) -> Iterator[Step]:
        """What is missing is added; what differs is a conflict; what only the server has stays."""
        wanted, had = want.named(), have.named()
        missing = {name for name in wanted if name not in had}
        other = {name for name in wanted if name in had and had[name] != wanted[name]}
        changed = missing | other if self.on_conflict == "overwrite" else missing
        if changed:
            tags = {key: text for key, text in want.tags.items() if f"tag {key}" in changed}
            description = want.description if "description" in changed else None
            stage = want.stage if "stage" in changed else None
            why = ", ".join(sorted(changed))
            yield replace(step, verb="update", why=why, tags=tags, description=description, stage=stage)
        if other - changed:
            yield replace(step, verb="skip", why=f"there with another {', '.join(sorted(other))}")
        if not missing and not other:
            yield replace(step, verb="keep")

    def _copy_of(self, name: str) -> str:
        """The same for each restore of one backup, so that twice is once."""
        return f"{name}-{re.sub(r'[^0-9TZ]', '', self.archive.manifest.taken)}"


def _is_there_after(step: Step) -> bool:
    return step.verb != "omit" and (step.verb == "create" or step.there > 0)


def _refuse_gaps(model: Model, versions: Sequence[Version]) -> None:
    numbers = [0, *sorted(version.number for version in versions)]
    for before, number in pairwise(numbers):
        if number - before > WIDEST_GAP:
            raise StageError(f"model {model.name}: {number - before} versions are missing before version {number}")
