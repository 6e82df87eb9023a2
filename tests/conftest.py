"""Fixtures that several test modules share, and the warnings of others' that no caller can avoid."""

import os

import pytest
from hypothesis import settings

from tests.browser import browser, playwright, with_camera
from tests.buckets import bucket
from tests.mlflow_server import empty_store, local_store, running_server
from tests.platform import platform, short_path
from tests.ray_nodes import cluster
from tests.server import server
from tests.team import team

__all__ = [
    "browser",
    "bucket",
    "cluster",
    "empty_store",
    "local_store",
    "platform",
    "playwright",
    "running_server",
    "server",
    "short_path",
    "team",
    "with_camera",
]

OURS = ("AWS_", "DVC_", "FINGERS_", "MLFLOW_", "PICSELLIA_")


def pytest_configure(config: pytest.Config) -> None:
    settings.register_profile("untimed", deadline=None)  # a machine may be slow: no test is a measurement
    settings.load_profile("untimed")
    for name in [name for name in os.environ if name.startswith(OURS)]:
        del os.environ[name]  # the developer's own servers, from .env: no test may reach them
    # MLflow 3.17 asks SQLAlchemy 2.1 for a loader that is on its way out
    config.addinivalue_line("filterwarnings", "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning")
    # picsellia 6.37 asks beartype for a name that is on its way out
    config.addinivalue_line("filterwarnings", 'ignore:Deprecated attribute "Beartype:DeprecationWarning')
