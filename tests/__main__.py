"""`python -m tests [--all] [pytest arguments]`: ruff, mypy --strict, every test not marked slow; --all adds those."""

import subprocess
import sys


def main() -> None:
    arguments = sys.argv[1:]
    chosen = [] if "--all" in arguments else ["-m", "not slow"]
    checks = [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy", "--no-error-summary"],
        ["pytest", *chosen, *(a for a in arguments if a != "--all")],
    ]
    for check in checks:
        sys.stderr.write(f"test: {' '.join(check)}\n")
        code = subprocess.run([sys.executable, "-m", *check], check=False).returncode
        if code:
            sys.exit(code)


if __name__ == "__main__":
    main()
