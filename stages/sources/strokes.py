"""Chains of circles -> filled, shaded shapes on a canvas; in whole numbers, so the same pixels on every machine."""

import math
from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np

from stages.vision.images import Image

Colour = tuple[int, int, int]  # RGB
Circle = tuple[float, float, float]  # x, y, radius
Chain = list[Circle]

SHIFT = 4  # OpenCV takes coordinates in 1/16 px
SHADES = 6  # steps from a limb's rim to where the light falls


def shade(canvas: Image, chain: Chain, colour: Colour, light: tuple[float, float], *, closed: bool = False) -> None:
    """Round as a tube: ever smaller skins of ever lighter colour, moved towards the light."""
    for step in range(SHADES):
        part = step / (SHADES - 1)
        inner = [
            (x + light[0] * r * 0.42 * part, y + light[1] * r * 0.42 * part, r * (1 - 0.72 * part)) for x, y, r in chain
        ]
        tone = scaled(mixed(colour, (255, 246, 230), 0.16 * part * part), 0.80 + 0.24 * part)
        (fill if closed else stretch)(canvas, inner, tone)


def stretch(canvas: Image, chain: Chain, colour: Colour, grow: float = 0) -> None:
    """The skin over neighbouring circles of an open chain, grow px wider."""
    chain = [(x, y, r + grow) for x, y, r in chain]
    for x, y, r in chain:
        cv2.circle(canvas, fixed(x, y), round(r * 2**SHIFT), colour, cv2.FILLED, cv2.LINE_8, SHIFT)
    for (x1, y1, r1), (x2, y2, r2) in pairwise(chain):
        length = math.sqrt((x2 - x1) * (x2 - x1) + (y2 - y1) * (y2 - y1))
        if length > 0:
            nx, ny = (y1 - y2) / length, (x2 - x1) / length
            corners = [(x1 + nx * r1, y1 + ny * r1), (x2 + nx * r2, y2 + ny * r2)]
            corners += [(x2 - nx * r2, y2 - ny * r2), (x1 - nx * r1, y1 - ny * r1)]
            polygon(canvas, corners, colour)


def fill(canvas: Image, chain: Chain, colour: Colour, grow: float = 0) -> None:
    """The skin over a closed chain, and what it encloses."""
    stretch(canvas, [*chain, chain[0]], colour, grow)
    polygon(canvas, [(x, y) for x, y, _ in chain], colour)


def polygon(canvas: Image, corners: Sequence[tuple[float, float]], colour: Colour) -> None:
    cv2.fillConvexPoly(canvas, np.array([fixed(*corner) for corner in corners], np.int32), colour, cv2.LINE_8, SHIFT)


def polyline(canvas: Image, chain: Chain, colour: Colour, thickness: float) -> None:
    points = np.array([fixed(x, y) for x, y, _ in chain], np.int32)
    cv2.polylines(canvas, [points], False, colour, max(1, round(thickness)), cv2.LINE_8, SHIFT)


def fixed(x: float, y: float) -> tuple[int, int]:
    return round(x * 2**SHIFT), round(y * 2**SHIFT)


def scaled(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255, int(channel * factor)) for channel in colour)
    return red, green, blue


def mixed(colour: Colour, other: Colour, part: float) -> Colour:
    red, green, blue = (int(a + (b - a) * part) for a, b in zip(colour, other, strict=True))
    return red, green, blue
