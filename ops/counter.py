"""A picture -> its Answer, and the picture with faces hidden: by the model on this disk, or by a server."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from serve.client import FingerClient, ServerError
from serve.intake import checked
from serve.models import Served, Shelf
from serve.problems import Problem
from serve.schema import Answer
from serve.service import answered
from serve.settings import Settings, read_settings
from serve.sight import Model, checked_release, decoded, hiding, look
from stages.lineage import local_folder
from stages.mlflow_client import tracking_uri
from stages.params import StageError
from stages.vision import engines
from stages.vision.faces import Blur
from stages.vision.images import MAX_PIXELS, Image, encode_jpeg
from stages.vision.network import Device

logger = logging.getLogger(__name__)

# Of the server's settings, those that say which model answers, and on what it runs.
READ = ("DEFAULT_MODEL_NAME", "DEFAULT_MODEL_STAGE", "MLFLOW_TRACKING_URI", "SERVE_DEVICE")
AT_ONCE = 4  # requests to a server: more than it has workers on most machines, fewer than it refuses


@dataclass(frozen=True)
class Counted:
    answer: Answer
    drawn: bytes | None  # JPEG: faces hidden, a box around each hand; None where it was not asked for


class Counter(Protocol):
    """Raises Problem or ServerError for a picture that gets no answer."""

    model: tuple[str, str]  # version and sha256 of the one that will answer
    at_once: int  # calls that may run beside each other

    def picture(self, content: bytes, *, draw: bool = False) -> Counted: ...

    def frame(self, image: Image, *, draw: bool = False) -> Counted: ...


@contextmanager
def counter_of(url: str | None, key_file: Path | None, version: str | None) -> Iterator[Counter]:
    """url None: here. Raises StageError."""
    if url is None:
        yield Here(chosen(version), read_here().serve_device)
        return
    with FingerClient(url, api_key(key_file)) as client:
        yield There(client, version)


class Here:
    """As a worker of the server looks at a picture, without the server."""

    at_once = 1

    def __init__(self, served: Served, device: Literal[Device, "auto"] = "auto", threads: int = 0) -> None:
        """threads 0: all cores. Raises StageError."""
        self._served = served
        release = checked_release(served.folder)
        choice = engines.pick(served.folder, release, device, threads)
        detector = engines.load(served.folder, release, choice, threads)
        self._model = Model(release, detector, Blur(hiding(release.faces), threads))
        self.model = served.version, release.sha256

    def picture(self, content: bytes, *, draw: bool = False) -> Counted:
        since = time.perf_counter()
        if isinstance(problem := checked(content, MAX_PIXELS), Problem):
            raise problem
        image = decoded(content, MAX_PIXELS)
        return self._counted(image, since, time.perf_counter() - since, draw=draw)

    def frame(self, image: Image, *, draw: bool = False) -> Counted:
        return self._counted(image, time.perf_counter(), 0.0, draw=draw)

    def _counted(self, image: Image, since: float, decode: float, *, draw: bool) -> Counted:
        seen = look(image, self._model.blur, self._model, render="image" if draw else "none")
        return Counted(answered(replace(seen, decode=decode, jpeg=None), self._served, since), seen.jpeg)


class There:
    """A server."""

    at_once = AT_ONCE

    def __init__(self, client: FingerClient, version: str | None) -> None:
        """version None: what answers there by default. Raises StageError."""
        self._client = client
        self._version = version
        try:
            self.model = there(client, version)
        except ServerError as error:
            raise StageError(str(error)) from None

    def picture(self, content: bytes, *, draw: bool = False) -> Counted:
        answer = self._client.count(content, model=self._version)
        if not draw:
            return Counted(answer, None)
        if not answer.preprocessing_applied:
            raise StageError("this server does not hide faces (ENABLE_PREPROCESSING), so nothing is saved; omit --save")
        return Counted(answer, self._client.render(content, model=self._version))

    def frame(self, image: Image, *, draw: bool = False) -> Counted:
        return self.picture(encode_jpeg(image), draw=draw)


def api_key(file: Path | None) -> str | None:
    try:
        return file.read_text(encoding="utf-8").strip() if file else os.environ.get("API_KEY")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise StageError(f"--key-file: {file} cannot be read: {why}") from None


def chosen(version: str | None) -> Served:
    """version None: what `fingers serve` would begin with. Raises StageError."""
    settings = read_here()
    if version and not settings.mlflow_tracking_uri:
        settings = settings.model_copy(update={"mlflow_tracking_uri": tracking_uri()})
    shelf = Shelf(settings, local_folder() / "serve")
    return shelf.fetch(version) if version else first(shelf)


def read_here() -> Settings:
    return read_settings({name: os.environ[name] for name in READ if name in os.environ})


def first(shelf: Shelf) -> Served:
    served, reason = shelf.first()
    if served is None:
        raise StageError(reason or "no model")
    if reason:  # such as a registry that is away: what it gave last answers
        logger.warning("%s", reason)
    return served


def there(client: FingerClient, version: str | None) -> tuple[str, str]:
    """Version and sha256 of the model that will answer. Raises ServerError, StageError."""
    health = client.health()
    if version is None:
        if health.model is None:
            raise StageError(f"the server has no model yet: {'; '.join(health.reasons)}")
        return health.model.version, health.model.sha256
    loaded = {one.version: one.sha256 for one in client.models().versions if one.loaded}
    if version not in loaded:
        raise StageError(
            f"--model: the server has no version {version!r} loaded; loaded: {', '.join(loaded) or 'none'}"
        )
    return version, loaded[version]
