"""The settings and arguments of `fingers serve` -> the addresses that it will answer at, one a line."""

import argparse
import os
import socket
import sys

from serve.settings import Settings, read_settings
from stages.params import StageError


def main() -> None:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--port")
    given, _ = parser.parse_known_args()  # what else there is, `fingers serve` judges
    try:
        settings = read_settings({**os.environ, **({"PORT": given.port} if given.port else {})})
    except StageError as error:
        sys.exit(f"addresses: {error}")
    sys.stdout.write("".join(f"{what:8} {address}\n" for what, address in addresses(settings).items()))


def addresses(settings: Settings) -> dict[str, str]:
    """By this machine's name where others may come in."""
    host = settings.host if settings.host == "127.0.0.1" else socket.gethostname()
    root = f"http://{host}:{settings.port}"
    return {"page": f"{root}/", "predict": f"{root}/predict", "docs": f"{root}/docs", "metrics": f"{root}/metrics"}


if __name__ == "__main__":
    main()
