"""What a test asks of its operating system: marks, each with the reason why it is skipped elsewhere."""

import os

import pytest

files = pytest.mark.skipif(os.name != "posix", reason="Windows keeps no modes of files, and allows fewer names")
processes = pytest.mark.skipif(os.name != "posix", reason="Windows ends a process without signals, limits and groups")
