"""Fixtures that several test modules share, and the one warning of another's that no caller can avoid."""

import pytest

from tests.mlflow_server import empty_store, local_store, running_server

__all__ = ["empty_store", "local_store", "running_server"]


def pytest_configure(config: pytest.Config) -> None:
    # MLflow 3.17 asks SQLAlchemy 2.1 for a loader that is on its way out
    config.addinivalue_line("filterwarnings", "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning")
