"""A folder of small files through which the API process tells every worker what to load, and each says what it has.

Files rather than a queue: a message in LitServe's queue reaches one worker, and one that is born later must know too.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from stages.files import write_text

WANTED = "wanted.json"


@dataclass(frozen=True)
class Holding:
    """What one worker has."""

    pid: int
    engine: dict[str, str] = field(default_factory=dict)  # version: what it runs on, such as cpu/bf16
    failed: dict[str, str] = field(default_factory=dict)  # version: why it could not be loaded


@dataclass(frozen=True)
class Board:
    folder: Path

    def want(self, models: Mapping[str, Path]) -> None:
        """models: version -> the folder with its files; all of what every worker shall hold from now on."""
        write_text(self.folder / WANTED, json.dumps({version: str(path) for version, path in models.items()}))

    def wanted(self) -> dict[str, Path] | None:
        """None: nobody has said yet."""
        try:
            return {version: Path(path) for version, path in json.loads((self.folder / WANTED).read_bytes()).items()}
        except FileNotFoundError:
            return None

    def changed(self) -> int:
        """Another number after each `want`."""
        try:
            status = (self.folder / WANTED).stat()
        except FileNotFoundError:
            return 0
        return hash((status.st_mtime_ns, status.st_ino))

    def report(self, worker: int, holding: Holding) -> None:
        write_text(self.folder / f"worker-{worker}.json", json.dumps(asdict(holding)))

    def holdings(self) -> dict[int, Holding]:
        """By worker. One that has died is there until its successor reports."""
        files = sorted(self.folder.glob("worker-*.json"))
        return {int(file.stem.removeprefix("worker-")): Holding(**json.loads(file.read_bytes())) for file in files}
