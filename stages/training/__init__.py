"""The home of torch and ultralytics, silent and offline: what they read from the environment is set before they are."""

import os

from stages.lineage import local_folder

# Threads that wait for each other spin for some microseconds, then sleep. With libgomp's own 30,000,000,000 turns they
# take the core from whom they wait for, once anything else runs: docs/benchmarks.md has the table.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")
os.environ["YOLO_OFFLINE"] = "true"  # neither importing nor starting asks the network
os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ["YOLO_VERBOSE"] = "false"
os.environ["ULTRALYTICS_SAFE_LOAD"] = "true"  # a .pt is a pickle, which is code: only networks are unpickled
os.environ["YOLO_CONFIG_DIR"] = str(local_folder())  # its settings.json, not the one in the user's home
