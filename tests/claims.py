"""A document -> what it says of this repository that is not so: links, code in the text, blocks."""

import ast
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import yaml

from tests.command_lines import line_faults
from tests.documents import ASSIGNMENT, SHELL, Block, Document, read, typed
from tests.native import ROOT
from tests.repository import ANY, is_read, is_there, options, param_faults, sections, words

PARSERS: Mapping[str, Callable[[str], object]] = {"json": json.loads, "toml": tomllib.loads, "python": ast.parse}
NOT_READ = ("", "js", "ini", "nginx", "promql")  # "": a drawing, or what a program prints; the rest other tests read
PROGRAMS = ("./run", "fingers", "dvc", "git", "python", "uv", "docker")
SUFFIXES = "py|sh|ps1|bat|ya?ml|json|toml|md|lock|csv|env|js|css|cfg|ini|conf|xml|bin|pt|onnx|txt"
PARAM = re.compile(r"\w+(\.[\w-]+)+(: .+)?")


def faults(document: Document, path: Path) -> list[str]:
    """One line for each. path: of the document, relative to the root."""
    lines = [line for block in document.blocks if block.language in SHELL for line in typed(block)]
    aliases = dict(alias for line in lines for alias in re.findall(r"^alias (\w+)='(.+)'$", line))
    found = [fault for link in document.links for fault in link_faults(link, document, path)]
    found += [fault for code in document.code for fault in code_faults(code, path.parent)]
    found += [f"line {block.line}: {fault}" for block in document.blocks for fault in block_faults(block, aliases)]
    return found


def link_faults(link: str, document: Document, path: Path) -> Iterator[str]:
    if re.match(r"[a-z]+:", link):  # another host, which no test may ask
        return
    target, _, anchor = link.partition("#")
    place = ROOT / path.parent / target
    if target and not place.exists():
        yield f"link {link}: there is no {target}"
    elif anchor and anchor not in (read(place.read_text(encoding="utf-8")) if target else document).anchors:
        yield f"link {link}: no such heading"


def code_faults(code: str, folder: Path) -> Iterator[str]:
    """Of code in the text, whose form tells what it is meant to be. The first form that fits counts."""
    for is_meant, its_faults in FORMS:
        if is_meant(code):
            yield from its_faults(code, folder)
            return


def is_command(code: str) -> bool:
    first, *rest = [word for word in code.split() if not ASSIGNMENT.fullmatch(word)] or [""]
    is_run = first == "run" and rest[:1] and rest[0] in PROGRAMS  # as on Windows; compose has a `run` of its own
    return bool(rest) and bool(first in PROGRAMS or is_run or "scripts/" in first)


def is_option(code: str) -> bool:
    return code.startswith("--")


def option_faults(code: str, _folder: Path) -> Iterator[str]:
    option = re.split(r"[ =]", code)[0]
    yield from () if option in options() else [f"{option}: no command here has this option"]


def is_param(code: str) -> bool:
    return bool(PARAM.fullmatch(code)) and code.split(".", maxsplit=1)[0] in sections() and not is_path(code)


def named_param_faults(code: str, _folder: Path) -> Iterator[str]:
    name, _, value = code.partition(": ")
    yield from param_faults({name: yaml.safe_load(value) if value not in ("", "…") else ANY})


def is_variable(code: str) -> bool:
    return bool(re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+(=.*)?|[A-Z]{2,}=.*", code))


def variable_faults(code: str, _folder: Path) -> Iterator[str]:
    name = code.partition("=")[0]
    yield from () if is_read(name) else [f"{name}: nothing reads it"]


def is_test(code: str) -> bool:
    return bool(re.fullmatch(r"test_\w+\.py::test_\w+", code))


def named_test_faults(code: str, _folder: Path) -> Iterator[str]:
    file, _, name = code.partition("::")
    path = ROOT / "tests" / file
    there = path.is_file() and f"def {name}(" in path.read_text(encoding="utf-8")
    yield from () if there else [f"{code}: no such test"]


def is_path(code: str) -> bool:
    is_file = re.fullmatch(rf"\.?[\w-]+(\.[\w-]+)*\.({SUFFIXES})", code)
    return bool(is_file) or (
        "/" in code.strip("/") and bool(re.fullmatch(r"[\w.~*…{}<>@+/-]*\w[\w.*…{}<>@+/-]*", code))
    )


def path_faults(code: str, folder: Path) -> Iterator[str]:
    yield from () if is_there(code, folder) else [f"{code}: no such path"]


def is_name(code: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z]\w*(_\w+)+(\(\))?|[a-z]\w*\(\)", code))


def name_faults(code: str, _folder: Path) -> Iterator[str]:
    name = code.removesuffix("()")
    is_known = name in words() or name.removeprefix("fingers_") in words()  # as metrics are called
    yield from () if is_known else [f"{code}: named nowhere in the code"]


FORMS: tuple[tuple[Callable[[str], bool], Callable[[str, Path], Iterator[str]]], ...] = (
    (is_command, lambda code, _: line_faults(code)),
    (is_option, option_faults),
    (is_test, named_test_faults),
    (is_variable, variable_faults),
    (is_param, named_param_faults),
    (is_path, path_faults),
    (is_name, name_faults),
)


def block_faults(block: Block, aliases: Mapping[str, str]) -> Iterator[str]:
    if block.language in SHELL:
        for line in typed(block):
            yield from line_faults(line, aliases)
    elif block.language == "yaml":
        yield from yaml_faults(block.code)
    elif block.language in PARSERS:
        try:
            PARSERS[block.language](block.code)
        except (ValueError, SyntaxError) as error:
            yield f"not {block.language}: {error}"
    elif block.language not in NOT_READ:
        yield f"a block in {block.language!r}, which nothing reads"


def yaml_faults(code: str) -> Iterator[str]:
    """Of any YAML that it is some; of one with sections of params.yaml, also what the pipeline says to it."""
    try:
        document = yaml.safe_load(code)
    except yaml.YAMLError as error:
        yield f"not YAML: {' '.join(str(error).split())}"
        return
    if isinstance(document, dict) and document.keys() <= sections():
        keys = {f"{section}.{key}": value for section, values in document.items() for key, value in values.items()}
        yield from param_faults(keys)
