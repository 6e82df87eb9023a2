"""`python -m tests [--all] [pytest arguments]`: ruff, mypy --strict, every test not marked slow; --all adds those."""

import subprocess
import sys
from collections.abc import Sequence


def main() -> None:
    for check in checks(sys.argv[1:]):
        sys.stderr.write(f"test: {' '.join(check)}\n")
        code = subprocess.run([sys.executable, "-m", *check], check=False).returncode
        if code:
            sys.exit(code)


def checks(arguments: Sequence[str]) -> list[list[str]]:
    """Modules, each with its arguments. A leading `test` is run.bat's: cmd has no name for all words but the first."""
    given = arguments[1:] if [word.lower() for word in arguments[:1]] == ["test"] else arguments
    chosen = [] if "--all" in given else ["-m", "not slow"]
    return [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy", "--no-error-summary"],
        ["pytest", *chosen, *(word for word in given if word != "--all")],
    ]


if __name__ == "__main__":
    main()
