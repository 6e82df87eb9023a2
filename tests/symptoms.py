"""docs/troubleshooting.md -> what it quotes; the code -> every text that it may say, with … for what varies."""

import ast
import re
from functools import cache
from pathlib import Path

from tests.native import ROOT
from tests.repository import tracked

TROUBLESHOOTING = Path("docs/troubleshooting.md")
QUOTE = re.compile(r"^\| (`+) ?(.+?) ?\1 \|", re.MULTILINE)  # what a program says, in the first column of a table


def quoted() -> list[str]:
    return [quote for _, quote in QUOTE.findall((ROOT / TROUBLESHOOTING).read_text(encoding="utf-8"))]


@cache
def said() -> frozenset[str]:
    return frozenset(text for name in tracked() if speaks(name) for text in texts_in(ROOT / name))


def speaks(name: str) -> bool:
    is_code = Path(name).suffix in (".py", ".js", ".sh", ".bat", "")
    return name == "run" or (is_code and name.startswith(("stages/", "serve/", "ops/", "scripts/", "run.")))


def texts_in(path: Path) -> set[str]:
    content = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return {re.sub(r"\$\{[^}]*\}|\$\w+", "…", line.strip()) for line in content.splitlines()}
    return {
        re.sub(r"%[-+.\d]*[sdgfar]", "…", text)
        for node in ast.walk(ast.parse(content))
        if isinstance(node, ast.Constant | ast.JoinedStr) and (text := text_of(node))
    }


def text_of(node: ast.Constant | ast.JoinedStr) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
