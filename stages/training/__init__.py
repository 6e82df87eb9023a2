"""The home of torch and ultralytics, silent and offline: what they read from the environment is set before they are."""

import os

from stages.tracking import local_folder

# Threads that wait for each other spin for some microseconds, then sleep; libgomp's own 30,000,000,000 turns make an
# epoch of the demo beside one other busy process last 135 s instead of 35 on 2 cores (alone 9.7 s, and 10.4 so).
os.environ.setdefault("GOMP_SPINCOUNT", "20000")
os.environ["YOLO_OFFLINE"] = "true"  # neither importing nor starting asks the network
os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ["YOLO_VERBOSE"] = "false"
os.environ["ULTRALYTICS_SAFE_LOAD"] = "true"  # a .pt is a pickle, which is code: only networks are unpickled
os.environ["YOLO_CONFIG_DIR"] = str(local_folder())  # its settings.json, not the one in the user's home
