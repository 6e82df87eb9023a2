"""Markdown -> what a reader can follow in it: links, headings, code in the text, blocks, and a block's commands."""

import re
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.checkout import git_lines
from tests.native import ROOT

SHELL = ("sh", "console", "bat", "powershell")  # fenced; what is indented is of the first kind
ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
OPERATORS = re.compile(r"[;<>|&()]+")


@dataclass(frozen=True)
class Block:
    section: str  # the heading above it, of the second level
    line: int
    language: str  # empty: a drawing, or what a program prints
    code: str


@dataclass(frozen=True)
class Document:
    links: tuple[str, ...]
    anchors: frozenset[str]
    code: tuple[str, ...]  # `in the text`
    blocks: tuple[Block, ...]


def documents() -> list[Path]:
    """Of the repository, relative to its root; also those that are not committed yet."""
    found = git_lines("ls-files", "--cached", "--others", "--exclude-standard", "*.md")
    return sorted({Path(name) for name in found if (ROOT / name).is_file()})


def read(text: str) -> Document:
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    inline = [child for token in tokens for child in token.children or ()]
    links = [child.attrs.get("href", child.attrs.get("src")) for child in inline]
    headings = [tokens[at + 1] for at, token in enumerate(tokens) if token.type == "heading_open"]
    return Document(
        links=tuple(str(link) for link in links if link),
        anchors=frozenset(slugs(headings)),
        code=tuple(child.content for child in inline if child.type == "code_inline"),
        blocks=tuple(blocks(tokens)),
    )


def blocks(tokens: list[Token]) -> Iterator[Block]:
    section = ""
    for at, token in enumerate(tokens):
        if token.type == "heading_open" and token.tag == "h2":
            section = tokens[at + 1].content
        elif token.type in ("code_block", "fence"):
            language = "sh" if token.type == "code_block" else token.info.strip()
            yield Block(section, (token.map or [0])[0] + 1, language, token.content)


def slugs(headings: list[Token]) -> Iterator[str]:
    """As GitHub makes them: letters, digits, - and _; the second of a name ends with -1."""
    seen: Counter[str] = Counter()
    for heading in headings:
        said = "".join(child.content for child in heading.children or () if child.type in ("text", "code_inline"))
        slug = re.sub(r"[^\w\- ]", "", said.lower()).replace(" ", "-")
        yield f"{slug}-{seen[slug]}" if seen[slug] else slug
        seen[slug] += 1


def typed(block: Block) -> list[str]:
    """What a reader types, one entry a command line, however many lines it takes."""
    lines = block.code.splitlines()
    if block.language == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    if block.language in ("bat", "powershell"):
        lines = [as_shell(line) for line in lines]
    whole: list[str] = []
    for line in lines:
        if whole and not is_whole(whole[-1]):
            whole[-1] += f"\n{line}"
        else:
            whole.append(line)
    return [line for line in whole if not is_whole(line) or words(line)]


def as_shell(line: str) -> str:
    """A line for cmd or PowerShell, as far as names go."""
    line = re.sub(r"^\s*(rem\b|::).*", "", line.replace("\\", "/"))
    return re.sub(r"^\s*(?:set \"?|\$env:)(\w+) ?= ?(?:\"(?=.*\"$))?(.*?)\"?$", r"\1='\2'", line)


def is_whole(line: str) -> bool:
    try:
        words(line)
    except ValueError:  # a quotation that is still open
        return False
    return not line.endswith(("\\", "|"))


def words(line: str) -> list[str]:
    lexer = shlex.shlex(line.replace("\\\n", " "), posix=True, punctuation_chars=";<>|&()")
    lexer.whitespace_split = True
    return list(lexer)


def commands(line: str) -> Iterator[list[str]]:
    """The words of each command in a line; redirections and the shell's own words are left out."""
    command: list[str] = []
    waiting = iter(words(line))
    for word in waiting:
        if OPERATORS.fullmatch(word) is None:
            command.append(word)
        elif set(word) & set("<>"):
            if command and command[-1].isdecimal():  # of 2>
                command.pop()
            next(waiting, None)
        else:
            yield without_keywords(command)
            command = []
    yield without_keywords(command)


def without_keywords(command: list[str]) -> list[str]:
    while command and command[0] in ("if", "then", "else", "fi", "while", "do", "done", "!", "{", "}"):
        command = command[1:]
    return [] if command[:1] in (["for"], ["["]) else command
