"""`python -m tests.mlflow_store URI`: everything an MLflow store holds, as JSON on stdout."""

import json
import os
import sys
from typing import Any

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

from mlflow import MlflowClient
from mlflow.entities import Run


def main() -> None:
    client = MlflowClient(sys.argv[1])
    runs = [
        described(client, run)
        for experiment in client.search_experiments()
        for run in client.search_runs([experiment.experiment_id], order_by=["start_time ASC"])
    ]
    versions = [
        {"version": v.version, "run_id": v.run_id, "tags": v.tags, "aliases": aliases(client, v.name, v.version)}
        for v in client.search_model_versions()
    ]
    json.dump({"runs": runs, "versions": versions}, sys.stdout)


def described(client: MlflowClient, run: Run) -> dict[str, Any]:
    run_id = run.info.run_id
    return {
        "id": run_id,
        "name": run.info.run_name,
        "status": run.info.status,
        "tags": run.data.tags,
        "params": run.data.params,
        "metrics": run.data.metrics,
        "steps": {key: [m.step for m in client.get_metric_history(run_id, key)] for key in run.data.metrics},
        "artifacts": sorted(file.path for file in client.list_artifacts(run_id)),
    }


def aliases(client: MlflowClient, name: str, version: str) -> list[str]:
    return list(client.get_model_version(name, version).aliases)


if __name__ == "__main__":
    main()
