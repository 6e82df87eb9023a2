"""A backup -> a server that has what is in it: what the plan says, in an order in which a kill costs nothing.

Runs are made first, all of them and empty, so that each id of the backup has one here; then they are filled. Whatever
is logged twice is there once, so a restore that was killed is simply started again.
"""

import logging
import posixpath
import re
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from tqdm import tqdm

from ops.backup.archive import Archive
from ops.backup.cache import FOLDER, cache_folder, missing_objects, restore_object
from ops.backup.plan import OnConflict, Plan, Step, plan
from ops.backup.records import (
    DELETED,
    PARTIAL,
    PLACEHOLDER,
    RESTORE_STATE,
    RESTORED_FROM,
    Place,
    Run,
    Version,
    own_tags,
)
from ops.backup.store import Store, open_store

logger = logging.getLogger(__name__)

NAME_TAG = "mlflow.runName"
TAGS_WITH_RUNS = ("mlflow.parentRunId", "mlflow.rootRunId")


def restore(path: Path, address: str, on_conflict: OnConflict, *, dry_run: bool) -> list[Step]:
    """What was done, or would be. Raises StageError, for a damaged or hostile file before anything is written."""
    with Archive(path) as archive, open_store(address, retries=0) as store:
        cache = cache_folder() if any(archive.files(FOLDER)) else None
        planned = plan(archive, store, on_conflict, cache)
        return planned.steps if dry_run else Restoration(archive, store, planned).execute()


@dataclass
class Restoration:
    """One restore while it goes on."""

    archive: Archive
    store: Store
    plan: Plan
    done: list[Step] = field(default_factory=list)
    numbers: dict[tuple[str, int], int] = field(default_factory=dict)  # of versions: by model, and number in the backup
    highest: dict[str, int] = field(default_factory=dict)  # number that the server has given, by model

    def execute(self) -> list[Step]:
        for step in self.plan.experiments:
            self.experiment(step)
            self.done.append(step)
        created = [step for step in self.plan.runs if step.verb == "create"]
        for step in tqdm(created, desc="new runs", disable=None):
            self.open_run(step)
        for step in tqdm(self.plan.runs, desc="runs", disable=None):
            self.run(step)
            self.done.append(step)
        for step in tqdm(self.plan.models, desc="models", disable=None):
            self.registry(step)
            self.done.append(step)
        for step in self.plan.ends:
            self.end(step)
            self.done.append(step)
        return self.done

    def experiment(self, step: Step) -> None:
        match step.verb:
            case "create":
                experiment = self.archive.experiment(step.source)
                tags = own_tags(experiment.tags) | {RESTORED_FROM: experiment.origin}
                if experiment.lifecycle == "deleted":
                    tags |= {RESTORE_STATE: DELETED}
                self.plan.ids[step.target] = self.store.create_experiment(step.target, tags)
            case "undelete":
                self.store.undelete_experiment(self.plan.ids[step.target])
            case "update":
                self.store.set_experiment_tags(self.plan.ids[step.target], step.tags)

    def open_run(self, step: Step) -> None:
        run = self.archive.run(step.source)
        tags = {RESTORED_FROM: run.origin, RESTORE_STATE: PARTIAL}
        self.plan.places[run.id] = self.store.create_run(self.plan.ids[step.target], run, tags)

    def run(self, step: Step) -> None:
        match step.verb:
            case "create" | "finish":
                self.fill_run(self.archive.run(step.source), self.plan.places[step.source])
            case "undelete":
                self.store.undelete_run(step.target)
            case "delete":
                self.store.delete_run(step.target)

    def fill_run(self, run: Run, place: Place) -> None:
        self.store.log_params(place.id, run.params)
        self.store.set_run_tags(place.id, self.run_tags(run))
        self.store.log_datasets(place.id, run.datasets)
        self.store.log_points(place.id, self.archive.points(run.id))
        self.upload(f"runs/{run.id}/artifacts", place.artifact_uri, "")
        if run.status != "RUNNING" or run.ended is not None:
            self.store.end_run(place.id, run.status, run.ended)
        if run.lifecycle == "deleted":  # its tags cannot be changed any more then
            self.store.set_run_tags(place.id, {RESTORE_STATE: DELETED})
            self.store.delete_run(place.id)
        else:
            self.store.delete_run_tag(place.id, RESTORE_STATE)

    def run_tags(self, run: Run) -> dict[str, str]:
        """With the runs that they name as those are called here."""
        tags = {key: text for key, text in own_tags(run.tags).items() if key != NAME_TAG}
        for key in TAGS_WITH_RUNS:
            if (named := tags.get(key)) in self.plan.places:
                tags[key] = self.plan.places[named].id
        return tags

    def registry(self, step: Step) -> None:
        match step.kind, step.verb:
            case "model", "create":
                model = self.archive.model(step.source)
                self.store.create_model(step.target, model.tags, model.description)
            case "model", "update":
                self.store.update_model(step.target, step.tags, step.description)
            case "model", "delete":
                self.store.delete_model(step.target)
            case "version", "create":
                self.create_version(step)
            case "version", "delete":
                self.store.delete_version(step.target, step.there)
            case "version", "keep" | "update" | "skip":
                self.numbers[step.target, step.number] = step.there
                if step.verb == "update":
                    self.store.update_version(step.target, step.there, step.tags, step.description, step.stage)
            case "alias", "create" | "update":
                self.store.set_alias(step.target, step.source, self.numbers[step.target, step.number])

    def create_version(self, step: Step) -> None:
        """Under its own number where the server has not given it before: it counts on for every version it makes.

        Placeholders stay until the version is there: without them a restore that goes on could not see how far the
        server has counted.
        """
        version = self.here(self.archive.version(step.source, step.number), step)
        last = self.highest.get(step.target, step.there)
        placeholders = []
        while last < step.number - 1:
            last = self.store.create_version(step.target, version, {RESTORE_STATE: PLACEHOLDER})
            placeholders.append(last)
        number = self.store.create_version(
            step.target, version, own_tags(version.tags) | {RESTORED_FROM: version.origin}
        )
        for placeholder in placeholders:
            self.store.delete_version(step.target, placeholder)
        if number != step.number:
            logger.warning("%s became version %d: the server has given the number before", step.name, number)
        self.highest[step.target] = self.numbers[step.target, step.number] = number
        self.store.update_version(step.target, number, {}, None, version.stage)

    def here(self, version: Version, step: Step) -> Version:
        """With its run and the place of its files as they are on this server."""
        place = self.plan.places.get(version.run_id)
        if place is None:
            return version.model_copy(update={"run_id": ""})
        if version.path_in_run is not None:
            source = f"{place.artifact_uri}/{version.path_in_run}".rstrip("/")
        elif any(self.archive.files(files := f"{step.source}/files/{version.number}")):
            name = re.sub(r"[^\w-]", "_", step.target)
            folder = f"registered/{name}/{version.number}"
            self.upload(files, place.artifact_uri, folder)
            source = f"{place.artifact_uri}/{folder}"
        else:
            source = version.source
        return version.model_copy(update={"run_id": place.id, "source": source})

    def upload(self, files: str, uri: str, folder: str) -> None:
        """What the archive has below files, one at a time through a temporary file, into a folder below uri."""
        with TemporaryDirectory() as temporary, self.store.uploads(uri) as upload:
            for name in self.archive.files(files):
                path = Path(temporary) / "artifact"
                self.archive.extract(f"{files}/{name}", path)
                upload(path, posixpath.join(folder, name))

    def end(self, step: Step) -> None:
        match step.kind:
            case "experiment":
                self.store.delete_experiment(self.plan.ids[step.target])
            case "cache":
                for name in missing_objects(self.archive, Path(step.target)):
                    restore_object(self.archive, name, Path(step.target))
