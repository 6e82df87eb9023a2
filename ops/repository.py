"""The folder one is in -> the repository."""

from pathlib import Path

from stages.params import StageError


def repository() -> Path:
    """The nearest folder upwards with a dvc.yaml. Raises StageError when there is none."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").is_file():
            return folder
    raise StageError(f"{here}: no dvc.yaml here or above; run fingers inside a clone of the repository")
