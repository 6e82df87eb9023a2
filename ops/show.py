"""Rows -> a table for people, or JSON for scripts."""

import json
import sys
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

Row = Mapping[str, object]


def show(rows: Sequence[Row], *, as_json: bool, empty: str) -> None:
    """One object a row, or a table with the first row's keys as columns; empty is said to people when there is none."""
    if as_json:
        sys.stdout.write(json.dumps(list(rows), indent=1, ensure_ascii=False, default=str) + "\n")
        return
    if not rows:
        sys.stdout.write(f"{empty}\n")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in rows[0]:
        table.add_column(column, justify="right" if isinstance(rows[0][column], int | float) else "left")
    for row in rows:
        table.add_row(*(cell(value) for value in row.values()))
    Console(width=None if sys.stdout.isatty() else 1000).print(table)


def cell(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}"
        case _:
            return escape(str(value))
