"""The home of torch and ultralytics, silent and offline: what they read from the environment is set before they are."""

import os

from stages.tracking import local_folder

os.environ["YOLO_OFFLINE"] = "true"  # neither importing nor starting asks the network
os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ["YOLO_VERBOSE"] = "false"
os.environ["ULTRALYTICS_SAFE_LOAD"] = "true"  # a .pt is a pickle, which is code: only networks are unpickled
os.environ["YOLO_CONFIG_DIR"] = str(local_folder())  # its settings.json, not the one in the user's home
