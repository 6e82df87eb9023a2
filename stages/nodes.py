"""RAY_ADDRESS -> a Ray cluster to work on, and files on their way to its nodes, which need no disk in common."""

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from stages.files import write_bytes
from stages.params import StageError

if TYPE_CHECKING:
    from ray import ObjectRef

NOT_INSTALLED = "Ray is not installed: it is the extra `ray`: uv pip install '.[ray]' -c requirements.lock"
START = "start one: ray start --head --include-dashboard=false --disable-usage-stats; or set RAY_ADDRESS"
SILENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nobody is told that we run
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what becomes Ray's default, about which it warns until then
    "RAY_TRAIN_METRICS_ENABLED": "0",
}
PACKAGES = ("ops", "serve", "stages")  # so that the nodes run this code, whatever they have installed
PART_BYTES = 64 << 20  # of files that travel together

File = tuple[str, bytes]  # a name, relative, with /


@contextmanager
def connected(**environment: str) -> Iterator[None]:
    """To a cluster that is there already, of which this machine is a node. environment: for the processes on its nodes.

    Raises StageError where Ray is not installed, and where there is no cluster.
    """
    os.environ.update(SILENT)
    try:
        import ray  # noqa: PLC0415 -- an extra, and a second and a half
    except ModuleNotFoundError:
        raise StageError(NOT_INSTALLED) from None
    address = os.environ.get("RAY_ADDRESS") or "auto"
    root = Path(__file__).parent.parent
    try:
        ray.init(
            address=address,
            runtime_env={"py_modules": [str(root / name) for name in PACKAGES], "env_vars": {**SILENT, **environment}},
            log_to_driver=False,
            logging_level=logging.WARNING,
        )
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        why = "none runs on this machine" if address == "auto" else " ".join(str(error).split())
        raise StageError(f"no Ray cluster (RAY_ADDRESS: {address}): {why}; {START}") from None
    with redirect_stdout(sys.stderr):  # on which Ray prints what becomes of nodes
        try:
            yield
        finally:
            ray.shutdown()


def on_this_node() -> dict[str, Any]:
    """Options of an actor that takes no room on it, and lives as long as it does."""
    import ray  # noqa: PLC0415
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return {"num_cpus": 0, "scheduling_strategy": here}


def sent(files: Mapping[str, Path]) -> list["ObjectRef[list[File]]"]:
    """Into the cluster's memory, in parts, for as long as the answer is held. files: by the names they shall have."""
    import ray  # noqa: PLC0415

    parts: list[ObjectRef[list[File]]] = []
    part: list[File] = []
    room = PART_BYTES
    for name, path in files.items():
        part.append((name, path.read_bytes()))
        room -= len(part[-1][1])
        if room <= 0:
            parts.append(ray.put(part))
            part, room = [], PART_BYTES
    return [*parts, ray.put(part)]


def received(parts: Sequence["ObjectRef[list[File]]"], folder: Path) -> None:
    import ray  # noqa: PLC0415

    for part in parts:
        for name, content in ray.get(part):
            write_bytes(folder / name, content)


def below(folder: Path, name: str) -> dict[str, Path]:
    """Every file in it, by its path under name; none where it does not exist."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(PurePosixPath(name, path.relative_to(folder).as_posix())): path for path in files}
