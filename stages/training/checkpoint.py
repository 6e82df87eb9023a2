"""The state of a training after an epoch <-> a file that is whole or is not used."""

import hashlib
import io
import logging
import shutil
from pathlib import Path
from typing import Any

import torch

from stages.files import write_bytes

logger = logging.getLogger(__name__)

State = dict[str, Any]  # tensors, numbers, strings, and dicts and lists of them
KEPT = 2  # the newest, and the one to fall back on
DIGEST_SIZE = hashlib.sha256().digest_size


class Checkpoints:
    """The last epochs of one training, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, epoch: int, state: State) -> None:
        """After a crash at any moment newest() is this state or the one before."""
        content = io.BytesIO()
        torch.save(state, content)
        write_bytes(self.folder / f"{epoch:06d}.checkpoint", _sealed(content.getvalue()))
        for path in self._paths()[KEPT:]:
            path.unlink()

    def newest(self) -> State | None:
        """Discards what is damaged, with a warning."""
        for path in self._paths():
            content = path.read_bytes()
            payload = content[DIGEST_SIZE:]
            if content == _sealed(payload):
                state: State = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
                return state
            logger.warning("%s: damaged; going on from the checkpoint before it", path.name)
            path.unlink()
        return None

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("*.checkpoint"), reverse=True)


def _sealed(payload: bytes) -> bytes:
    return hashlib.sha256(payload).digest() + payload
