"""Pictures -> a new version of the dataset on Picsellia, whole or not at all; and what the token opens there.

Whatever carries the name that was asked for is complete: until then it is `<name>.partial`. A push that was killed is
found again by that, and in the datalake by the files' names, which tell their content.
"""

import io
import logging
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.params import PicselliaParams, StageError
from stages.sources.picsellia import (
    EVERY_STATE,
    Page,
    Platform,
    Version,
    check_token,
    find_version,
    list_assets,
    list_labels,
)
from stages.sources.store import NAMED, WORKERS

logger = logging.getLogger(__name__)

TAG = "hard"
TURNS = 2  # that each upload has, of five tries each
POLL, PATIENCE = 1.0, 600.0  # s: between two looks at what the platform works on, and of them all


@dataclass(frozen=True)
class Access:
    """What the token opens: the version that params.yaml names."""

    user: str
    dataset: str
    version: str
    assets: int
    labels: list[str]  # in the platform's order


@dataclass(frozen=True)
class Target:
    """Where a push goes: a fork of parent, under a name that is free."""

    parent: Version
    name: str
    file_names: Counter[str]  # of what parent holds

    @property
    def partial(self) -> str:
        return f"{self.name}.partial"


def check(params: PicselliaParams) -> Access:
    """Raises StageError with the remedy."""
    version = open_version(params)
    labels = list_labels(version)
    return Access(check_token(params), version.sdk.name, version.sdk.version, count_assets(version), labels)


def aim(params: PicselliaParams, name: str) -> Target:
    """Only asks. Raises StageError for a name that is none or taken, and when the version to fork is not there."""
    if not re.fullmatch(r"\S(.*\S)?", name):
        raise StageError(f"--version {name!r}: must be a name, without spaces around it")
    parent = open_version(params)
    if find_beside(parent, name):
        raise StageError(f"{parent}: its dataset has a version {name!r} already; give another --version")
    return Target(parent, name, file_names(parent))


def push(target: Target, files: Sequence[Path]) -> None:
    """The version target.name: all of its parent, and files, which lie in the datalake with the tag `hard`.

    files are named by their content. Raises StageError for what did not arrive or was not copied; again, it goes on
    from there, and doubles nothing.
    """
    platform = target.parent.platform
    with platform.errors():
        begun = resume(target, files)
        data = upload(platform, files)
        version = begun or fork(target)
        add(version, data, target)
        rename(version, target)
    logger.info(
        "%s: all of %s, and %d pictures to annotate; then write pull.picsellia.version: %s into params.yaml",
        version,
        target.parent.name,
        len(files),
        target.name,
    )


def resume(target: Target, files: Sequence[Path]) -> Version | None:
    """What a push that was stopped has left, once all of its parent is in it: the job that copies goes on without us.

    Raises StageError when that was a push of other pictures.
    """
    version = find_beside(target.parent, target.partial)
    if version is None:
        return None
    if others := file_names(version).keys() - target.file_names.keys() - {file.name for file in files}:
        raise StageError(
            f"{version}: holds {len(others)} pictures of another push, as {min(others)}; repeat that one, "
            "or delete the version there"
        )
    annotations = len(annotation_ids(target.parent))

    def copied() -> bool:
        return target.file_names <= file_names(version) and len(annotation_ids(version)) >= annotations

    until(copied, f"{version}: has not all of {target.parent.name} yet (if it stays so, delete that version there)")
    return version


def upload(platform: Platform, files: Sequence[Path]) -> dict[str, Any]:
    """File name -> its Data, ready for use; what the datalake has is not sent again. Raises StageError."""
    lake = platform.client.get_datalake()
    tag = lake.get_or_create_data_tag(TAG)
    reasons: dict[str, str] = {}
    for _ in range(TURNS):
        there = find_data(lake, files)
        if missing := [file for file in files if file.name not in there]:
            reasons = send(platform, lake, missing, tag)
    there = until_ready(lake, files)
    if missing := [file for file in files if file.name not in there]:
        named = "; ".join(f"{file.name}: {reasons.get(file.name, 'no reason given')}" for file in missing[:NAMED])
        raise StageError(
            f"{platform.host}: {len(missing)} of {len(files)} pictures did not arrive: {named}; "
            "push again: what arrived is not sent twice"
        )
    if broken := sorted(name for name, data in there.items() if data.upload_status.value == "ERROR"):
        raise StageError(
            f"{platform.host}: cannot read {len(broken)} pictures that arrived: {', '.join(broken[:NAMED])}; "
            "delete them in its datalake, and push again"
        )
    return there


def send(platform: Platform, lake: Any, files: Sequence[Path], tag: Any) -> dict[str, str]:
    """File name -> why it failed. The SDK raises nothing but when all of them do."""
    from picsellia.exceptions import NothingDoneError  # noqa: PLC0415 -- a second
    from picsellia.services.error_manager import ErrorManager  # noqa: PLC0415

    logging.getLogger("picsellia").setLevel(logging.CRITICAL)  # it logs what this returns, with a traceback each
    errors = ErrorManager()
    with no_bar_but_on_terminals(), suppress(NothingDoneError):  # errors has the reasons
        lake.upload_data(
            list(files),
            tags=[tag],
            max_workers=WORKERS,
            error_manager=errors,
            wait_for_unprocessable_data=False,
        )
    return {Path(error.path).name: platform.redacted(error.parent or error) for error in errors.errors}


def until_ready(lake: Any, files: Sequence[Path]) -> dict[str, Any]:
    """As find_data, once the platform has looked at each."""
    there: dict[str, Any] = {}

    def looked_at() -> bool:
        there.update(find_data(lake, files))
        return all(data.is_ready() for data in there.values())

    until(looked_at, "the pictures are still being processed")
    return there


def find_data(lake: Any, files: Sequence[Path]) -> dict[str, Any]:
    """File name -> its Data; of several always the same: the SDK repeats an upload whose answer was lost."""
    from picsellia.exceptions import NoDataError  # noqa: PLC0415

    with no_bar_but_on_terminals():
        try:
            found = lake.list_data(filenames=[file.name for file in files])
        except NoDataError:
            return {}
    return {data.filename: data for data in sorted(found, key=lambda data: data.id, reverse=True)}


def fork(target: Target) -> Version:
    parent = target.parent.sdk
    made, job = parent.fork(
        version=target.partial,
        description=f"{parent.version}, and pictures that the model is least sure of",
        type=parent.type,  # else NOT_CONFIGURED
        with_tags=True,
        with_labels=True,
        with_annotations=True,
        wait=False,  # it would wait for 20 s, and take FAILED for an end like another
    )
    version = Version(target.parent.platform, made)
    finish(job, version, "delete that version there, and push again")
    return version


def add(version: Version, data: Mapping[str, Any], target: Target) -> None:
    """What version has is not added again: the platform might hold it twice then."""
    there = file_names(version)
    if missing := [one for name, one in data.items() if name not in there]:
        finish(version.sdk.add_data(missing, wait=False), version, "push again")
    expected = target.file_names | Counter(data.keys())
    if lost := expected - file_names(version):
        raise StageError(f"{version}: lacks {lost.total()} of {expected.total()} pictures, as {min(lost)}; push again")


def rename(version: Version, target: Target) -> None:
    from picsellia.exceptions import ResourceConflictError  # noqa: PLC0415

    try:
        version.sdk.update(version=target.name)
    except ResourceConflictError:
        raise StageError(
            f"{version}: is complete, but somebody made a version {target.name!r} meanwhile; rename it there"
        ) from None


def open_version(params: PicselliaParams) -> Version:
    if not (params.dataset and params.version):
        raise StageError("pull.picsellia: names no dataset and version; write them into params.yaml")
    return find_version(Platform(params), params)


def find_beside(version: Version, name: str) -> Version | None:
    """Another version of its dataset."""
    from picsellia.exceptions import ResourceNotFoundError  # noqa: PLC0415

    with version.platform.errors():
        dataset = version.platform.client.get_dataset(version.sdk.name)
        try:
            return Version(version.platform, dataset.get_version(name))
        except ResourceNotFoundError:
            return None


def file_names(version: Version) -> Counter[str]:
    """How often each is there: on the platform, two pictures may have the same."""
    return Counter(one.data.filename for one in list_assets(version)) if count_assets(version) else Counter()


def annotation_ids(version: Version) -> list[str]:
    return version.ask(list[str], "annotations/ids")


def count_assets(version: Version) -> int:
    return version.ask(Page, "assets", params={"limit": 1, **EVERY_STATE}).count


def finish(job: Any, version: Version, remedy: str) -> None:
    """Raises StageError for a job on version that ends otherwise than well, and for one that does not end."""

    def over() -> bool:
        job.sync()
        return bool(job.status.value != "RUNNING")

    until(over, f"{version}: job {job.id} still runs")
    if job.status.value != "SUCCESS":
        raise StageError(f"{version}: job {job.id} ended as {job.status.value}; {remedy}")


def until(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > deadline:
            raise StageError(f"{what}, after {PATIENCE / 60:g} minutes; push again later: it goes on from there")
        time.sleep(POLL)


@contextmanager
def no_bar_but_on_terminals() -> Iterator[None]:
    """The SDK draws them without asking."""
    with redirect_stderr(sys.stderr if sys.stderr.isatty() else io.StringIO()):
        yield
