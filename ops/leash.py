"""A command -> the same, ended with all that it started as soon as the process that wanted it is gone, however it went.

Ray kills a process without a word when a node is lost to it; what that process had started would go on training.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Thread


def start(command: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path) -> "subprocess.Popen[bytes]":
    """Its stdin is the leash: let go of it, or die, and the command ends."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, __file__, *command],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def main() -> None:
    process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    Thread(target=end_when_let_go, daemon=True).start()
    sys.exit(process.wait())


def end_when_let_go() -> None:
    os.read(sys.stdin.fileno(), 1)  # nothing is ever written: it returns when the other end is closed
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
