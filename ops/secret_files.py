"""NAME_FILE in the environment -> NAME, for programs that read no such file; then the command given takes over.

The entry point of each image: `python -m ops.secret_files mlflow server`. It asks for no shell, and leaves no process
between the engine's signals and the command.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from stages.params import StageError

# What libpq, boto3 and MLflow read from the environment alone. `fingers` itself reads its own files.
NAMES: Final = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "MLFLOW_BACKEND_STORE_URI",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_USERNAME",
    "PGPASSWORD",
)


def main() -> None:
    program, *arguments = sys.argv[1:]
    try:
        os.execvpe(program, [program, *arguments], {**os.environ, **from_files(os.environ)})  # noqa: S606 -- as meant
    except StageError as error:
        sys.exit(str(error))
    except FileNotFoundError:
        sys.exit(f"{program}: no such program in this image")


def from_files(environment: Mapping[str, str]) -> dict[str, str]:
    """By NAME. Raises StageError, naming the variable, and never what is in the file."""
    paths = {name: path for name in NAMES if (path := environment.get(f"{name}_FILE"))}
    if both := [name for name in paths if environment.get(name)]:
        raise StageError(f"{both[0]}: set, and {both[0]}_FILE too; keep one of them")
    return {name: _content(f"{name}_FILE", Path(path)) for name, path in paths.items()}


def _content(name: str, path: Path) -> str:
    try:
        content = path.read_text(encoding="utf-8").strip()
    except OSError as error:  # Docker makes a directory of a secret that is not there
        raise StageError(f"{name}: {path} cannot be read: {error.strerror}") from None
    if not content:
        raise StageError(f"{name}: {path} is empty; put the secret in it, or leave {name} unset")
    return content


if __name__ == "__main__":
    main()
