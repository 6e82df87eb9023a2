"""A command line -> what in it does not exist: the program, its command, its options, paths, stages, services."""

import ast
import io
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest.mock import patch

import typer
import yaml
from dvc.cli import DvcParserError
from dvc.cli.parser import get_main_parser
from typer.exceptions import TyperException

from tests.documents import ASSIGNMENT, commands
from tests.native import ROOT
from tests.repository import ANY, fingers, is_read, is_there, param_faults, stages, tracked

BIN = Path(sys.executable).parent
PREFIXES = ("./run", "run", ".\\run", "sudo", "exec", "nohup")
# Of operating systems, or others' that may be absent here: their options are their own affair.
OTHERS = frozenset(
    (
        *(
            "apt",
            "apt-get",
            "base64",
            "brew",
            "cat",
            "cd",
            "chmod",
            "chown",
            "cp",
            "crontab",
            "curl",
            "date",
            "df",
            "du",
        ),
        *(
            "echo",
            "gh",
            "grep",
            "head",
            "id",
            "install",
            "jq",
            "kill",
            "ls",
            "mkdir",
            "mv",
            "nginx",
            "nvidia-smi",
            "openssl",
        ),
        *(
            "powershell",
            "promtool",
            "reg",
            "rm",
            "sed",
            "ssh",
            "systemctl",
            "tail",
            "tr",
            "true",
            "winget",
            "wsl",
            "xargs",
        ),
        *("alias", "unset", "test"),  # the shell's own; of ./run
    )
)
WHOLE_SERVICES = ("up", "stop", "restart", "logs", "ps", "pull", "build", "rm", "start", "kill")


def line_faults(line: str, aliases: Mapping[str, str] = MappingProxyType({})) -> Iterator[str]:
    try:
        split = list(commands(line))
    except ValueError as error:
        yield f"{line}: {error}"
        return
    for command in filter(None, split):
        first, *arguments = command
        yield from command_faults([*aliases.get(first, first).split(), *arguments])


def command_faults(command: Sequence[str]) -> Iterator[str]:
    while command and ((assigned := ASSIGNMENT.fullmatch(command[0])) or command[0] in PREFIXES):
        if assigned and assigned[1].isupper() and not is_read(assigned[1]):
            yield f"{assigned[1]}: nothing reads it"
        command = command[1:]
    if not command:
        return
    program, *arguments = command
    yield from (f"{word}: no such path" for word in arguments if is_ours(word) and not is_there(word))
    if program in PROGRAMS:
        yield from PROGRAMS[program](arguments)
    elif "/" in program or program.endswith((".sh", ".bat", ".ps1")):
        yield from () if is_there(program) else [f"{program}: no such path"]
    elif program not in OTHERS and not shutil.which(program, path=str(BIN)) and not program.isupper():  # COMMAND: any
        yield f"{program}: no such program"


def is_ours(word: str) -> bool:
    """Whether a word of a command means a path of the repository, and not one of the reader's."""
    top = word.removeprefix("./").split("/")[0]
    return "/" in word.strip("/") and "://" not in word and any(name.startswith(f"{top}/") for name in tracked())


def fingers_faults(arguments: Sequence[str]) -> Iterator[str]:
    """Parsed as fingers would, up to where it would begin to work."""
    command = fingers()
    name, waiting = "fingers", list(arguments)
    while hasattr(command, "commands") and waiting and not waiting[0].startswith("-"):
        name = f"{name} {waiting[0]}"
        if waiting[0] not in command.commands:
            yield f"{name}: no such command"
            return
        command = command.commands[waiting.pop(0)]
    if name == "fingers sweep":
        yield from param_faults({override(word)[0]: ANY for word in waiting if word[0] != "-" and "=" in word})
    try:
        if waiting:  # else it is but mentioned
            command.make_context(name, waiting)
    except TyperException as error:
        said = error.format_message()
        yield from () if "does not exist" in said else [f"{name}: {said}"]  # a file of the reader's own
    except typer.Exit:  # --help
        pass


def dvc_faults(arguments: Sequence[str]) -> Iterator[str]:
    try:
        with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            known = dvc_parser().parse_args(list(arguments))
    except DvcParserError:
        yield f"dvc {' '.join(arguments)}: not understood by DVC"
        return
    except SystemExit:  # --help
        return
    yield from param_faults(dict(map(override, getattr(known, "set_param", None) or ())))
    if known.cmd in ("repro", "push", "pull", "fetch", "checkout", "status", "run"):
        targets = [str(target) for target in getattr(known, "targets", None) or ()]
        yield from (f"{one}: no stage or output" for one in targets if one not in stages() and not is_there(one))


@cache
def dvc_parser() -> Any:
    """DVC looks at the options of whoever builds it."""
    with patch.object(sys, "argv", ["dvc"]):
        return get_main_parser()


def override(given: str) -> tuple[str, Any]:
    """Of -S name=value, in Hydra's grammar; sweeps, deletions and placeholders are not looked into."""
    name, _, value = given.lstrip("+~").partition("=")
    is_plain = "(" not in value and not given.startswith("~") and not re.search(r"[A-Z]{3}/|…", value)
    return name, yaml.safe_load(value) if is_plain else ANY


def python_faults(arguments: Sequence[str]) -> Iterator[str]:
    match arguments:
        case ["-m", module, *given] if (file := module_file(module)) is not None:
            paths = str(stages().get(module.removeprefix("stages."), {}).get("cmd", "")).split()[3:]
            if paths and given and len(given) != len(paths):
                yield f"{module}: takes {len(paths)} paths"
            text = file.read_text(encoding="utf-8")
            named = {word.partition("=")[0] for word in given if word.startswith("--")} - {"--help"}
            yield from (f"{module}: has no option {option}" for option in sorted(named) if f'"{option}"' not in text)
        case ["-m", module, *_] if is_ours(module.replace(".", "/")) or find_spec(module.split(".")[0]) is None:
            yield f"python -m {module}: no such module"
        case ["-c", code, *_]:
            try:
                ast.parse(code)
            except SyntaxError as error:
                yield f"python -c: {error}"


def module_file(module: str) -> Path | None:
    place = ROOT / module.replace(".", "/")
    return next((file for file in (place.with_suffix(".py"), place / "__main__.py") if file.is_file()), None)


def docker_faults(arguments: Sequence[str]) -> Iterator[str]:
    """Of docker compose: files, options, services. Of docker, which is not here, nothing."""
    if arguments[:1] == ["compose"]:
        yield from compose_faults(arguments[1:])


def compose_faults(arguments: Sequence[str]) -> Iterator[str]:
    waiting = list(arguments)
    while waiting and waiting[0].startswith("-"):
        if waiting.pop(0) in ("-f", "--file", "-p", "--project-name", "--profile", "--env-file"):
            waiting.pop(0)
    if not waiting:
        return
    name, given = waiting[0], waiting[1:]
    yield from option_faults(("docker-compose", name), given)
    with_value = re.findall(r"(--?[\w-]+)(?:, (--[\w-]+))? [a-z]+(?:Array)? {2,}", help_of(("docker-compose", name)))
    valued = {option for pair in with_value for option in pair}
    plain = [w for at, w in enumerate(given) if not w.startswith("-") and (at == 0 or given[at - 1] not in valued)]
    named = plain[:1] if name in ("exec", "run") else plain if name in WHOLE_SERVICES else []
    yield from (f"docker compose {name} {service}: no such service" for service in named if service not in services())


@cache
def services() -> frozenset[str]:
    """Of deploy/compose.yaml, alone and with each file that changes it."""
    found: set[str] = set()
    first, *others = sorted(ROOT.glob("deploy/compose*.yaml"), key=lambda path: len(path.name))
    for files in ([first], *([first, other] for other in others)):
        named = [word for file in files for word in ("-f", str(file))]
        command = [str(BIN / "docker-compose"), *named, "--profile", "*", "config", "--services"]
        found |= set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    return frozenset(found)


def git_faults(arguments: Sequence[str]) -> Iterator[str]:
    if arguments[:1] != ["config"]:  # since 2.46 `git config -h` names its commands, and no option of them
        yield from option_faults(("git", *arguments[:1]), arguments[1:], how="-h")


def uv_faults(arguments: Sequence[str]) -> Iterator[str]:
    depth = 2 if arguments[:1] == ["pip"] else 1
    yield from option_faults(("uv", *arguments[:depth]), arguments[depth:])


def option_faults(program: tuple[str, ...], arguments: Sequence[str], how: str = "--help") -> Iterator[str]:
    """Of a program that is here: what its own help does not name."""
    text = help_of(program, how)
    if not text:
        yield f"{' '.join(program)}: no such command"
        return
    for word in arguments:
        option = word.partition("=")[0]
        plain = option.removeprefix("--").removeprefix("no-")  # a help may name one of the two
        if option.startswith("--") and not re.search(rf"--(no-|\[no-\])?{re.escape(plain)}(?![\w-])", text):
            yield f"{' '.join(program)}: has no option {option}"


@cache
def help_of(program: tuple[str, ...], how: str = "--help") -> str:
    """Empty where it knows no such command."""
    path = shutil.which(program[0], path=str(BIN)) or shutil.which(program[0])
    if path is None:
        return ""
    done = subprocess.run([path, *program[1:], how], capture_output=True, text=True, check=False, cwd=ROOT)
    unknown = re.search(
        r"not a git command|unrecognized subcommand|unknown docker command|No such command", done.stderr
    )
    return "" if unknown else done.stdout + done.stderr


def written_option_faults(package: str, file: str, arguments: Sequence[str]) -> Iterator[str]:
    """Of a program that takes seconds to tell its options: what the file that declares them does not name."""
    spec = find_spec(package)
    text = (Path(spec.origin).parent / file).read_text(encoding="utf-8") if spec and spec.origin else ""
    named = (word.partition("=")[0] for word in arguments if word.startswith("--"))
    yield from (f"{package}: has no option {option}" for option in named if f'"{option}' not in text)


def exported_faults(arguments: Sequence[str]) -> Iterator[str]:
    names = (word.partition("=")[0] for word in arguments)
    yield from (f"{name}: nothing reads it" for name in names if not is_read(name))


PROGRAMS: Mapping[str, Callable[[Sequence[str]], Iterator[str]]] = {
    "docker": docker_faults,
    "docker-compose": compose_faults,
    "dvc": dvc_faults,
    "export": exported_faults,
    "fingers": fingers_faults,
    "git": git_faults,
    "mlflow": lambda arguments: written_option_faults("mlflow", "cli/__init__.py", arguments),
    "python": python_faults,
    "python3": python_faults,
    "ray": lambda arguments: written_option_faults("ray", "scripts/scripts.py", arguments),
    "uv": uv_faults,
}
