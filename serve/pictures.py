"""A Blurred picture, and the hands seen in it -> JPEG. Nothing else is ever encoded for a caller."""

from collections.abc import Sequence

import cv2
import numpy as np

from serve.jobs import Hand
from stages.vision.faces import Blurred
from stages.vision.images import encode_jpeg

QUALITY = 90
COLOURS = ((230, 57, 70), (29, 120, 189), (42, 157, 92), (244, 140, 6), (131, 56, 236), (0, 150, 160), (110, 110, 110))
LINE = 1 / 240  # of the picture's longer side


def jpeg(picture: Blurred, hands: Sequence[Hand], classes: Sequence[str]) -> bytes:
    """With a box and its class and confidence for each hand, lines and letters growing with the picture."""
    image = picture.image.copy() if hands else picture.image
    thickness = max(2, round(max(image.shape[:2]) * LINE))
    for hand in reversed(hands):  # the surest on top
        colour = COLOURS[hand.class_id % len(COLOURS)]
        x1, y1, x2, y2 = np.round(hand.box).astype(int).tolist()
        cv2.rectangle(image, (x1, y1), (x2, y2), colour, thickness)
        words, scale = f"{classes[hand.class_id]} {hand.confidence:.0%}", thickness / 4
        (width, height), base = cv2.getTextSize(words, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness // 2)
        top = max(0, y1 - height - base - thickness)
        cv2.rectangle(image, (x1, top), (x1 + width + thickness, top + height + base + thickness), colour, cv2.FILLED)
        corner = (x1 + thickness // 2, top + height + thickness // 2)
        cv2.putText(image, words, corner, cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), thickness // 2, cv2.LINE_AA)
    return encode_jpeg(image, QUALITY)
