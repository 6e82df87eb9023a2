"""What a backup holds of MLflow, as records: experiments, runs and their points, models, versions."""

from collections.abc import Mapping
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

# A restore cannot choose ids, numbers and times of creation. These tags say where a thing came from, so that it is
# found again, and whether it is whole.
RESTORED_FROM = "restored_from"
RESTORE_STATE = "restore_state"
PARTIAL = "partial"  # a kill came before the end: to be finished
DELETED = "deleted"  # was deleted in the backup: whole once it is so here too
PLACEHOLDER = "placeholder"  # a version that only makes the server count on; deleted at once
NO_STAGE = "None"  # MLflow's word for none


class Record(BaseModel):
    """Times are ms since 1970."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Experiment(Record):
    id: str
    name: str
    lifecycle: str  # active or deleted
    artifact_location: str
    created: int | None
    updated: int | None
    tags: dict[str, str]

    @property
    def origin(self) -> str:
        return self.tags.get(RESTORED_FROM, f"{self.id}@{self.created}")


class Dataset(Record):
    """An input of a run; tags are of this use of it."""

    name: str
    digest: str
    source_type: str
    source: str
    columns: str | None  # MLflow's schema: JSON
    profile: str | None
    tags: dict[str, str]


class Run(Record):
    id: str
    experiment_id: str
    name: str
    user: str
    status: str
    started: int
    ended: int | None
    lifecycle: str  # active or deleted
    artifact_uri: str
    params: dict[str, str]
    tags: dict[str, str]
    datasets: list[Dataset]

    @property
    def origin(self) -> str:
        """The id it had where it was first logged: by that a run is the same, on whatever server."""
        return self.tags.get(RESTORED_FROM, self.id)

    @property
    def is_half_restored(self) -> bool:
        state = self.tags.get(RESTORE_STATE)
        return state == PARTIAL or (state == DELETED and self.lifecycle == "active")


class Place(NamedTuple):
    """Of a run on a server."""

    id: str
    artifact_uri: str


class Point(NamedTuple):
    key: str
    step: int
    time: int
    value: float


class Model(Record):
    name: str
    description: str
    created: int
    updated: int
    tags: dict[str, str]
    aliases: dict[str, int]


class Version(Record):
    number: int
    description: str
    created: int
    updated: int
    run_id: str
    run_link: str
    source: str
    stage: str
    tags: dict[str, str]
    path_in_run: str | None  # of its files among its run's artifacts; None: they are elsewhere

    @property
    def origin(self) -> str:
        """Number and time of its first registration: by that a version of one model is the same."""
        return self.tags.get(RESTORED_FROM, f"{self.number}@{self.created}")

    @property
    def is_placeholder(self) -> bool:
        return self.tags.get(RESTORE_STATE) == PLACEHOLDER


def own_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Without those of a restore."""
    return {key: text for key, text in tags.items() if key not in (RESTORED_FROM, RESTORE_STATE)}
