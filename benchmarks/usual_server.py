"""A picture -> its count, by the server that people commonly write: what benchmarks/serve.py holds ours against.

FastAPI, the checkpoint loaded by Ultralytics on torch, OpenCV's Haar cascade, a Gaussian blur, one process; an `async`
handler that computes. Written as the tutorials of these libraries do it.
"""

import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import uvicorn
from fastapi import FastAPI, File, UploadFile

os.environ["YOLO_OFFLINE"] = "true"
from ultralytics import YOLO  # type: ignore[attr-defined]

app = FastAPI()
model: Any = None
cascade = cv2.CascadeClassifier(str(Path(cv2.__file__).with_name("data") / "haarcascade_frontalface_default.xml"))


@app.post("/predict")
async def predict(file: Annotated[UploadFile, File()]) -> dict[str, Any]:
    started = time.perf_counter()
    image: Any = cv2.imdecode(np.frombuffer(await file.read(), np.uint8), cv2.IMREAD_COLOR)
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    faces = cascade.detectMultiScale(grey, 1.1, 5)
    for x, y, w, h in faces:
        image[y : y + h, x : x + w] = cv2.GaussianBlur(image[y : y + h, x : x + w], (51, 51), 30)
    (result,) = model(image, imgsz=320, verbose=False)
    hands = [
        {"class_name": result.names[int(box.cls)], "confidence": float(box.conf), "bbox": box.xyxy[0].tolist()}
        for box in result.boxes
    ]
    return {
        "finger_count": sum(int(hand["class_name"]) for hand in hands if hand["class_name"].isdigit()),
        "predictions": hands,
        "faces_blurred": len(faces),
        "inference_time_ms": (time.perf_counter() - started) * 1000,
    }


@app.get("/ready")
def ready() -> str:
    return "ok"


if __name__ == "__main__":
    model = YOLO(sys.argv[1], task="detect")
    model(np.zeros((480, 640, 3), np.uint8), imgsz=320, verbose=False)
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
