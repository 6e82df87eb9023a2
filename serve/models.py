"""Which models there are, which are loaded and which one answers: from the registry, or models/release.json."""

import asyncio
import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from serve.board import Board
from serve.problems import Problem, unavailable
from serve.schema import ModelRef, Models, Version
from serve.settings import Settings
from stages.files import read_json, sha256_of, whole_directory, write_json
from stages.mlflow_client import ServerAway
from stages.params import StageError
from stages.registry import RELEASE_FILE
from stages.release import Release, read_release

if TYPE_CHECKING:
    from stages.registry import Registry

logger = logging.getLogger(__name__)

UNREGISTERED = "release"  # the version that models/release.json answers as
LOAD_WITHIN = 60.0  # s for all workers to load and try a model
RETRY = 10.0  # s between two tries to reach a registry that was away at the start
POLL = 0.05  # s
FRESH = 5.0  # s for which the registry's list is not asked for again


@dataclass(frozen=True)
class Served:
    """A model's checked files on this disk, under the version it answers as."""

    version: str
    folder: Path
    release: Release

    @property
    def ref(self) -> ModelRef:
        return ModelRef(name=self.release.name, version=self.version, sha256=self.release.sha256)


class Shelf:
    """Versions of the registry, or the release of this checkout where no registry is set -> files on this disk."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        """folder: .local/serve of a checkout, where downloads stay, for the next start too."""
        self._name = settings.default_model_name
        self._reference = settings.default_model_stage
        self._has_registry = bool(settings.mlflow_tracking_uri)
        self._folder = folder
        self._release = folder.parent.parent / "models" / RELEASE_FILE
        self._last = folder / "last.json"  # what was served last, for a start without the registry

    def first(self) -> tuple[Served | None, str | None]:
        """What to begin with, and what is wrong with it: None, and why there is none."""
        if not self._has_registry:
            return self._unregistered()
        try:
            return self.fetch(self._reference), None
        except ServerAway as error:
            return self._as_last_time(f"{error}; serving what was served last")
        except StageError as error:
            return None, str(error)

    def fetch(self, reference: str) -> Served:
        """Raises StageError, ServerAway among them."""
        if not self._has_registry:
            if reference != UNREGISTERED:
                raise StageError(
                    f"no version {reference!r}: without MLFLOW_TRACKING_URI there is only {UNREGISTERED!r}"
                )
            served, reason = self._unregistered()
            if served is None:
                raise StageError(reason or "")
            return served
        registry = self.registry()
        version = registry.find(reference)
        folder = self._folder / f"{self._name}-{version.number}-{version.identity[:12]}"
        release = read_release(folder / RELEASE_FILE) if folder.exists() else registry.download(version, folder)
        write_json(self._last, {"version": version.number, "folder": folder.name})
        return Served(version.number, folder, release)

    def registry(self) -> "Registry":
        from stages.registry import Registry  # noqa: PLC0415 -- seconds, and not needed for a release

        return Registry(self._name)

    def listed(self) -> list[Version]:
        """Newest first; loaded and current are left for the caller to fill in. Raises StageError."""
        if not self._has_registry:
            served, _ = self._unregistered()
            return [listed_release(served)] if served else []
        registry = self.registry()
        aliases = registry.aliases()
        return [
            Version(
                version=version.number,
                aliases=[alias for alias, number in aliases.items() if number == version.number],
                loaded=False,
                current=False,
                sha256=version.sha256,
                metrics=metrics_of(version.tags),
                lineage={name: version.tags.get(name) for name in ("data", "lock", "git")} | {"run_id": version.run_id},
            )
            for version in registry.versions()
        ]

    def _unregistered(self) -> tuple[Served | None, str | None]:
        """A copy: dvc may replace the files while they serve."""
        try:
            release = read_release(self._release)
            folder = self._folder / f"{UNREGISTERED}-{sha256_of(self._release)[:12]}"
            if not folder.exists():
                with whole_directory(folder) as partial:
                    for file in (RELEASE_FILE, *release.files()):
                        shutil.copyfile(self._release.with_name(file), partial / file)
        except FileNotFoundError as error:
            return None, f"{error.filename}: not found; dvc pull, or dvc repro, brings it"
        except StageError as error:
            return None, str(error)
        failures = [failure.text for failure in release.gates.failures]
        reason = f"{self._release}: this model did not pass its gates: {'; '.join(failures)}" if failures else None
        return Served(UNREGISTERED, folder, release), reason

    def _as_last_time(self, reason: str) -> tuple[Served | None, str | None]:
        if not self._last.exists():
            return None, reason.partition(";")[0]
        last = read_json(self._last)
        folder = self._folder / last["folder"]
        return Served(last["version"], folder, read_release(folder / RELEASE_FILE)), reason


class Loaded:
    """Of the API process: the models that every worker holds, and the one that answers by default."""

    def __init__(self, settings: Settings, shelf: Shelf, board: Board, under_way: Mapping[str | None, int]) -> None:
        """under_way: how many jobs each version has; kept up to date by its owner."""
        self.current: Served | None = None
        self.reason: str | None = None  # why there is none, or what is wrong with it
        self._settings = settings
        self._shelf = shelf
        self._board = board
        self._under_way = under_way
        self._models: dict[str, Served] = {}  # least recently used first
        self._changing = asyncio.Lock()
        self._listed: tuple[float, list[Version], str | None] = (-FRESH, [], None)

    def begin(self) -> None:
        """Before the workers are ready: they wait for what is posted."""
        self.reason = "the server's log says why"
        try:
            self.current, self.reason = self._shelf.first()
            self._models = {self.current.version: self.current} if self.current else {}
        finally:
            self._post()
        if self.reason:
            logger.warning("%s", self.reason)

    async def keep_trying(self) -> None:
        """Until there is a model. A worker that cannot load the first one says so on the board."""
        if self.current and (why := self._failure(self.current.version)):
            self.current, self.reason, self._models = None, why, {}
        while self.current is None:
            await asyncio.sleep(RETRY)
            try:
                await self.load(self._settings.default_model_stage)
            except Problem as problem:
                self.reason = problem.message

    def take(self, version: str | None) -> Served:
        """The model that shall answer a request. Raises Problem."""
        if version is None:
            if self.current is None:
                raise unavailable(f"there is no model yet: {self.reason}", retry_after=10)
            version = self.current.version
        try:
            served = self._models[version] = self._models.pop(version)
        except KeyError:
            there = ", ".join(self._models) or "none"
            raise Problem(409, "model_not_loaded", f"version {version!r} is not loaded; loaded: {there}") from None
        return served

    async def load(self, reference: str) -> Served:
        """Loaded, warmed and tried in every worker beside the present one; then it answers. Raises Problem.

        Each request names the version it was admitted with, so that none mixes two and none is lost.
        """
        async with self._changing:
            try:
                served = await asyncio.to_thread(self._shelf.fetch, reference)
            except ServerAway as error:
                raise unavailable(str(error), retry_after=10) from None
            except StageError as error:
                raise Problem(404, "not_found", str(error)) from None
            if served.version not in self._models:
                await self._load_everywhere(served)
            self._models[served.version] = self._models.pop(served.version, served)
            self.current, self.reason = served, None
            self._listed = (-FRESH, [], None)
            await self._let_go()
            return served

    async def listed(self) -> Models:
        asked, versions, trouble = self._listed
        if time.monotonic() - asked > FRESH:
            try:
                versions, trouble = await asyncio.to_thread(self._shelf.listed), None
            except StageError as error:
                versions, trouble = [listed_release(served) for served in self._models.values()], str(error)
            self._listed = (time.monotonic(), versions, trouble)
        current = self.current.version if self.current else None
        marked = [
            v.model_copy(update={"loaded": v.version in self._models, "current": v.version == current})
            for v in versions
        ]
        return Models(name=self._settings.default_model_name, current=current, registry=trouble, versions=marked)

    def engine(self, version: str) -> str | None:
        """What it runs on, such as cpu/bf16."""
        return next((h.engine[version] for h in self._board.holdings().values() if version in h.engine), None)

    async def _load_everywhere(self, served: Served) -> None:
        """Raises Problem, and then no worker keeps it."""
        self._post(served)
        deadline = time.monotonic() + LOAD_WITHIN
        why = None
        while not (there := self._everywhere(served.version)) and not why and time.monotonic() < deadline:
            await asyncio.sleep(POLL)
            why = self._failure(served.version)
        if not there:
            self._post()
            why = why or f"not within {LOAD_WITHIN:g} s"
            raise Problem(409, "model_not_loaded", f"version {served.version} could not be loaded: {why}")

    def _everywhere(self, version: str) -> bool:
        holdings = self._board.holdings()
        return len(holdings) == self._settings.serve_workers and all(version in h.engine for h in holdings.values())

    def _failure(self, version: str) -> str | None:
        return next((h.failed[version] for h in self._board.holdings().values() if version in h.failed), None)

    async def _let_go(self) -> None:
        """Of the least recently used beyond those kept, once nobody waits for their answers."""
        gone = [version for version in self._models if self.current is None or version != self.current.version]
        for version in gone[: max(0, len(self._models) - self._settings.models_kept)]:
            del self._models[version]
            deadline = time.monotonic() + self._settings.request_timeout
            while self._under_way[version] and time.monotonic() < deadline:
                await asyncio.sleep(POLL)
        self._post()

    def _post(self, *more: Served) -> None:
        self._board.want({served.version: served.folder for served in (*self._models.values(), *more)})


def listed_release(served: Served) -> Version:
    release = served.release
    metrics = {name: getattr(release.metrics, name) for name in METRICS}
    lineage = {name: getattr(release.lineage, name) for name in ("data", "lock", "git", "run_id")}
    return Version(
        version=served.version,
        aliases=[],
        loaded=False,
        current=False,
        sha256=release.sha256,
        metrics=metrics,
        lineage=lineage,
    )


METRICS = ("map50", "count_accuracy", "count_accuracy_low", "count_accuracy_high")


def metrics_of(tags: Mapping[str, str]) -> dict[str, float | None]:
    """Of stages.registry.summary; what somebody else wrote there is not ours."""
    return {name: number(tags.get(name)) for name in METRICS}


def number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
