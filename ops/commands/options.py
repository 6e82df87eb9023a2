"""Options that several commands have."""

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]
ModelName = Annotated[str | None, typer.Option(help="Of the registered model, in place of the usual one.")]
OnRay = Annotated[
    bool, typer.Option("--ray", help="On the Ray cluster of RAY_ADDRESS: from a folder on S3 into another, --out.")
]
