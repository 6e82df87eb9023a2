"""What an MLflow store holds, read from its database's tables and its files: nothing of MLflow's own code takes part.

Two stores with the same content are equal here, whatever ids their things have.
"""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import create_engine, text

TABLES = (
    "experiments",
    "experiment_tags",
    "runs",
    "params",
    "tags",
    "metrics",
    "latest_metrics",
    "datasets",
    "inputs",
    "input_tags",
    "registered_models",
    "registered_model_tags",
    "registered_model_aliases",
    "model_versions",
    "model_version_tags",
)
OURS = ("restored_from", "restore_state")
Row = dict[str, Any]


def contents(database: str, files: Mapping[str, str]) -> dict[str, Any]:
    """database: its SQLAlchemy address. files: artifact address below the store's root -> sha256.

    Runs are called by the id that they had first, experiments by name.
    """
    engine = create_engine(database)
    with engine.connect() as connection:
        tables = {
            name: [dict(row) for row in connection.execute(text(f"SELECT * FROM {name}")).mappings()]  # noqa: S608
            for name in TABLES
        }
    engine.dispose()
    return Tables(tables, files).contents()


class Tables:
    def __init__(self, tables: Mapping[str, list[Row]], files: Mapping[str, str]) -> None:
        self.tables = tables
        self.files = files
        self.experiments = {row["experiment_id"]: row["name"] for row in tables["experiments"]}
        self.origins = {row["run_uuid"]: row["run_uuid"] for row in tables["runs"]}
        self.origins |= {row["run_uuid"]: row["value"] for row in tables["tags"] if row["key"] == "restored_from"}

    def contents(self) -> dict[str, Any]:
        return {
            "experiments": {row["name"]: self.experiment(row) for row in self.tables["experiments"]},
            "runs": {self.origins[row["run_uuid"]]: self.run(row) for row in self.tables["runs"]},
            "models": {row["name"]: self.model(row) for row in self.tables["registered_models"]},
        }

    def experiment(self, row: Row) -> Row:
        return {
            "lifecycle": row["lifecycle_stage"],
            "tags": self.named("experiment_tags", experiment_id=row["experiment_id"]),
        }

    def run(self, row: Row) -> Row:
        own = {"run_uuid": row["run_uuid"]}
        kept = ("name", "user_id", "status", "start_time", "end_time", "lifecycle_stage")
        return {
            **{column: row[column] for column in kept},
            "experiment": self.experiments[row["experiment_id"]],
            "params": self.named("params", **own),
            "tags": self.named("tags", **own) | self.parent(row["run_uuid"]),
            "points": sorted(map(point, self.where("metrics", **own))),
            "newest": sorted(map(point, self.where("latest_metrics", **own))),
            "datasets": sorted(self.datasets(row["run_uuid"])),
            "files": self.files_below(row["artifact_uri"]),
        }

    def parent(self, run_id: str) -> dict[str, str]:
        """By the id that it had first: a tag that names a run of another store names none."""
        named = self.where("tags", run_uuid=run_id, key="mlflow.parentRunId")
        return {row["key"]: self.origins.get(row["value"], "no run") for row in named}

    def datasets(self, run_id: str) -> list[str]:
        found = []
        for link in self.where("inputs", destination_type="RUN", destination_id=run_id, source_type="DATASET"):
            (dataset,) = self.where("datasets", dataset_uuid=link["source_id"])
            tags = {tag["name"]: tag["value"] for tag in self.where("input_tags", input_uuid=link["input_uuid"])}
            kept = {key: value for key, value in dataset.items() if key not in ("dataset_uuid", "experiment_id")}
            found.append(json.dumps([kept, tags], sort_keys=True))
        return found

    def model(self, row: Row) -> Row:
        own = {"name": row["name"]}
        aliases = self.where("registered_model_aliases", **own)
        return {
            "description": row["description"] or "",
            "tags": self.named("registered_model_tags", **own),
            "aliases": {alias["alias"]: alias["version"] for alias in aliases},
            "versions": {
                version["version"]: self.version(version)
                for version in self.where("model_versions", **own)
                if version["current_stage"] != "Deleted_Internal"
            },
        }

    def version(self, row: Row) -> Row:
        return {
            "description": row["description"] or "",
            "run": self.origins.get(row["run_id"], "no run"),
            "run_link": row["run_link"] or "",
            "stage": row["current_stage"],
            "tags": self.named("model_version_tags", name=row["name"], version=row["version"]),
            "files": self.files_below(self.resolved(row["storage_location"])),
        }

    def resolved(self, address: str) -> str:
        """Of an artifact address, runs:/ID/PATH too."""
        if not address.startswith("runs:/"):
            return address
        run_id, _, path = address.removeprefix("runs:/").partition("/")
        (run,) = self.where("runs", run_uuid=run_id)
        return f"{run['artifact_uri']}/{path}"

    def files_below(self, address: str) -> dict[str, str]:
        path = address.partition(":")[2].lstrip("/")
        return {name[len(path) + 1 :]: sha for name, sha in self.files.items() if name.startswith(f"{path}/")}

    def named(self, table: str, **columns: object) -> dict[str, str]:
        return {row["key"]: row["value"] for row in self.where(table, **columns) if row["key"] not in OURS}

    def where(self, table: str, **columns: object) -> list[Row]:
        return [row for row in self.tables[table] if all(row[name] == value for name, value in columns.items())]


def point(row: Row) -> tuple[str, int, int, float, bool]:
    return row["key"], row["step"], row["timestamp"], row["value"], bool(row["is_nan"])


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Each place in which two contents differ, with both values."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return [] if one == other else [f"{where}: {one!r} and {other!r}"]
    names = sorted(one.keys() | other.keys(), key=str)
    return [line for n in names for line in differences(one.get(n, "none"), other.get(n, "none"), f"{where}/{n}")]
