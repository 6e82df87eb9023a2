"""Pictures to fetch from elsewhere -> files under `.local/`, each checked; what arrived stays for the next run."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from filelock import FileLock
from tqdm import tqdm

from stages.files import sha256_of
from stages.lineage import local_folder
from stages.params import StageError
from stages.vision.images import Unreadable, decode

WORKERS = 8
BATCH = 64  # files asked for at a time: Ctrl-C waits for no more, and when none of them comes, nobody is there
NAMED = 10  # that an error lists


class Lost(Exception):
    """Why a file did not come, without secrets."""


@dataclass(frozen=True)
class Wanted:
    """A picture to fetch."""

    id: str  # safe as a file name, without a dot
    name: str  # for people
    size: tuple[int, int] | None  # (width, height) px as displayed, if its owner states it


Fetch = Callable[[Wanted, Path], None]  # writes the file, whole, or raises Lost


@dataclass(frozen=True)
class Store:
    """One folder of files. `<id>.<sha256>` arrived whole and is the picture that was promised; `<id>` is in doubt."""

    folder: Path

    def fill(self, wanted: Sequence[Wanted], fetch: Fetch) -> dict[str, Path]:
        """Id -> its file. What is there is not fetched again, and what nobody wants any more is deleted.

        Raises StageError, naming those that did not come, after each had two turns.
        """
        kept = self.tidy({one.id for one in wanted})
        files: dict[str, Path] = {}
        lost: dict[Wanted, str] = {}

        def one(asked: Wanted) -> Path | str:
            try:
                return intact(kept.get(asked.id)) or self.checked(asked, fetch)
            except Lost as reason:
                return str(reason)

        bar = tqdm(total=len(wanted), desc="fetch", unit="picture", disable=None, delay=2)
        with ThreadPoolExecutor(WORKERS) as pool, bar:
            for _ in range(2):
                for batch in batches([asked for asked in wanted if asked.id not in files]):
                    found = dict(zip(batch, pool.map(one, batch), strict=True))
                    came = {asked.id: file for asked, file in found.items() if isinstance(file, Path)}
                    lost |= {asked: reason for asked, reason in found.items() if isinstance(reason, str)}
                    files |= came
                    bar.update(len(came))
                    if not came:
                        break
        if missing := len(wanted) - len(files):
            named = [f"{asked.name} ({asked.id}): {why}" for asked, why in lost.items() if asked.id not in files][
                :NAMED
            ]
            more = f"; and {missing - len(named)} more" if missing > len(named) else ""
            raise StageError(
                f"{missing} of {len(wanted)} pictures could not be fetched: {'; '.join(named)}{more}. "
                "Run it again: what arrived is kept"
            )
        return files

    def checked(self, asked: Wanted, fetch: Fetch) -> Path:
        """A file that is not the picture which was promised is asked for once more, and then left in doubt.

        Its owner may hold it so, which convert says; or something on the way spoilt it, which the next run finds out.
        """
        path = self.folder / asked.id
        for _ in range(2):
            fetch(asked, path)
            content = path.read_bytes()
            if is_promised(content, asked.size):
                return path.replace(self.folder / f"{asked.id}.{sha256(content).hexdigest()}")
        return path

    def tidy(self, ids: Iterable[str]) -> dict[str, Path]:
        """Id -> the file that was kept of it."""
        files = {path: path.stem in ids for path in self.folder.iterdir()}
        for path, wanted in files.items():
            if not wanted:
                path.unlink()  # somebody may have asked for that
        return {path.stem: path for path, wanted in files.items() if wanted and path.suffix}


@contextmanager
def open_store(name: str) -> Iterator[Store]:
    """For one process at a time: a second experiment waits, and finds all there."""
    folder = local_folder() / name
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        yield Store(folder)


def intact(path: Path | None) -> Path | None:
    """None for one that is not there, and for one whose bytes are no longer what its name says, which goes."""
    if path is None or not path.exists():
        return None
    if path.suffix == f".{sha256_of(path)}":
        return path
    path.unlink()
    return None


def is_promised(content: bytes, size: tuple[int, int] | None) -> bool:
    try:
        height, width, _ = decode(content).shape
    except Unreadable:
        return False
    return size in (None, (width, height))


def batches(wanted: Sequence[Wanted]) -> Iterator[Sequence[Wanted]]:
    for start in range(0, len(wanted), BATCH):
        yield wanted[start : start + BATCH]
