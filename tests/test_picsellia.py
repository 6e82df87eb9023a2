"""A dataset version on Picsellia -> assets, by the real SDK, from a stand-in that speaks its protocol and misbehaves."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from stages.convert import convert
from stages.files import read_json
from stages.params import Params, StageError
from stages.pull import pull
from stages.sources.picsellia import check_token
from tests import native
from tests.picsellia_platform import TOKEN, Picture, Platform, Serve, serve

__all__ = ["serve"]


@pytest.fixture(autouse=True)
def _own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`.local/` below tmp_path, the stand-in's token, and nobody waits for a platform that a test broke for good."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("PICSELLIA_TOKEN", TOKEN)
    monkeypatch.delenv("PICSELLIA_TOKEN_FILE", raising=False)


def params_for(platform: Platform, **changes: object) -> Params:
    named = {"pull.picsellia": {"dataset": "hands", "version": "v1", "organization": "", "host": platform.host}}
    return native.params(**{"pull.sources": ["picsellia"], **named, "convert.max_excluded": 0.9, **changes})


def test_smoke(serve: Serve, tmp_path: Path) -> None:
    platform = serve([Picture(f"{n}.png", [native.accepted(native.rectangle(n))]) for n in [*"012345", "unknown"]])
    assert check_token(params_for(platform).pull.picsellia) == "alice"
    pull(params_for(platform), tmp_path / "raw")
    convert(params_for(platform), tmp_path / "raw", tmp_path / "yolo")
    assert read_json(tmp_path / "raw/labels.json") == {"picsellia:hands": [*"012345", "unknown"]}
