"""A pose -> a hand (or a mitten) painted on a canvas, and the box around it.

A finger is the skin stretched over the circles of its joints. Numbers are in palm widths, from the palm's centre,
fingers up. A turn is t = tan(angle / 2): the cosine is (1 - t²) / (1 + t²) and the sine 2t / (1 + t²), which IEEE 754
rounds alike on every machine, as it does not promise for sin and cos.
"""

import math
from dataclasses import dataclass

from stages.sources.strokes import Chain, Colour, fill, mixed, polyline, scaled, shade, stretch
from stages.vision.images import Image

OUTLINE = 0.035  # palm widths

THUMB, INDEX, MIDDLE, RING, LITTLE = range(5)
KNUCKLES = {INDEX: (-0.37, -0.36), MIDDLE: (-0.125, -0.45), RING: (0.125, -0.42), LITTLE: (0.36, -0.30)}
LENGTHS = {INDEX: 0.80, MIDDLE: 0.90, RING: 0.82, LITTLE: 0.64}
LEANS = {INDEX: -0.15, MIDDLE: -0.045, RING: 0.075, LITTLE: 0.20}  # tan(angle / 2) from upright
PALM: Chain = [(-0.36, -0.30, 0.14), (0.0, -0.40, 0.14), (0.35, -0.24, 0.14), (0.27, 0.42, 0.17), (-0.25, 0.42, 0.19)]
ARM: Chain = [(0.0, 0.45, 0.36), (0.0, 1.1, 0.38)]
SLEEVE: Chain = [(0.0, 1.15, 0.46), (0.0, 6.0, 0.75)]
BAND: Chain = [(-0.36, 1.0, 0.10), (0.36, 1.0, 0.10)]  # the sleeve's end
MITTEN: Chain = [
    (-0.24, -0.78, 0.24),
    (0.20, -0.80, 0.24),
    (0.34, -0.20, 0.17),
    (0.25, 0.42, 0.16),
    (-0.27, 0.42, 0.16),
]
MITTEN_THUMB: Chain = [(-0.26, 0.20, 0.17), (-0.52, -0.06, 0.17), (-0.62, -0.30, 0.15)]


@dataclass(frozen=True)
class Pose:
    """Where a hand is and what it shows; x, y and unit in px of the canvas."""

    x: float  # of the palm's centre
    y: float
    unit: float  # the palm's width
    turn: float  # tan(angle / 2), clockwise
    mirrored: bool
    palm_side: bool
    spread: float  # 1: at rest
    raised: frozenset[int] | None  # THUMB … LITTLE; None: a mitten, which shows nothing

    def place(self, chain: Chain) -> Chain:
        """Palm widths -> px of the canvas."""
        placed = []
        for u, v, radius in chain:
            x, y = rotate(-u if self.mirrored else u, v, self.turn)
            placed.append((self.x + self.unit * x, self.y + self.unit * y, self.unit * radius))
        return placed


@dataclass(frozen=True)
class Look:
    skin: Colour
    sleeve: Colour
    wool: Colour  # of the mitten
    light: tuple[float, float]  # unit vector towards the lamp, y down


def rotate(x: float, y: float, turn: float) -> tuple[float, float]:
    cosine, sine = (1 - turn * turn) / (1 + turn * turn), 2 * turn / (1 + turn * turn)
    return cosine * x - sine * y, sine * x + cosine * y


def box_of(pose: Pose) -> tuple[int, int, int, int]:
    """x1 y1 x2 y2 around the hand without its arm, in px of the canvas; it may reach outside."""
    palm = MITTEN if pose.raised is None else PALM
    circles = [circle for chain in (palm, *fingers(pose)) for circle in pose.place(chain)]
    return (
        math.floor(min(x - r for x, _, r in circles)),
        math.floor(min(y - r for _, y, r in circles)),
        math.ceil(max(x + r for x, _, r in circles)),
        math.ceil(max(y + r for _, y, r in circles)),
    )


def paint_hand(canvas: Image, pose: Pose, look: Look) -> None:
    """In place, as an illustrator would: arm, outline, then each part shaded towards the light."""
    paint_arm(canvas, pose, look)
    if pose.raised is None:
        paint_mitten(canvas, pose, look)
        return
    raised = [finger(pose, digit) for digit in sorted(pose.raised, reverse=True)]
    line = scaled(look.skin, 0.42)
    grow = OUTLINE * pose.unit
    for chain in raised:
        stretch(canvas, pose.place(chain), line, grow)
    fill(canvas, pose.place(PALM), line, grow)
    for chain in raised:
        shade(canvas, pose.place(chain), look.skin, look.light)
    shade(canvas, pose.place(PALM), look.skin, look.light, closed=True)
    if THUMB in pose.raised:
        shade(canvas, pose.place(finger(pose, THUMB)), look.skin, look.light)
    if pose.palm_side:
        paint_creases(canvas, pose, line)
    else:
        paint_nails(canvas, pose, look, raised)
    for chain in folded(pose, pose.raised):
        stretch(canvas, pose.place(chain), line, grow)
        shade(canvas, pose.place(chain), look.skin, look.light)


def paint_silhouette(mask: Image, pose: Pose) -> None:
    """In place, white: all that paint_hand covers, arm included; it throws the shadow."""
    white, grow = (255, 255, 255), OUTLINE * pose.unit
    for chain in (ARM, SLEEVE, *fingers(pose)):
        stretch(mask, pose.place(chain), white, grow)
    fill(mask, pose.place(MITTEN if pose.raised is None else PALM), white, grow)


def fingers(pose: Pose) -> list[Chain]:
    if pose.raised is None:
        return [MITTEN_THUMB]
    return [finger(pose, digit) for digit in sorted(pose.raised)] + folded(pose, pose.raised)


def finger(pose: Pose, digit: int) -> Chain:
    """Raised: three joints, bent a little."""
    if digit == THUMB:
        x, y = rotate(-0.34, -0.34, -0.2 * (pose.spread - 1))
        return [(-0.24, 0.26, 0.17), (-0.52, 0.0, 0.135), (-0.52 + x, y, 0.11)]
    x, y = KNUCKLES[digit]
    lean, length = LEANS[digit] * pose.spread, LENGTHS[digit]
    middle, end = rotate(0, -length / 2, lean), rotate(0, -length, 0.9 * lean)
    width = 0.105 if digit == LITTLE else 0.12
    return [(x, y, width), (x + middle[0], y + middle[1], width), (x + end[0], y + end[1], 0.83 * width)]


def folded(pose: Pose, raised: frozenset[int]) -> list[Chain]:
    """Curled into the palm, seen from the palm's side; a row of knuckles, seen from the back."""
    chains: list[Chain] = []
    for digit in (LITTLE, RING, MIDDLE, INDEX):
        x, y = KNUCKLES[digit]
        if digit in raised:
            continue
        if pose.palm_side:
            chains.append([(x, y - 0.03, 0.125), (0.86 * x - 0.02, y + 0.36, 0.115)])
        else:
            chains.append([(x, y + 0.06, 0.115), (x, y - 0.05, 0.125)])
    if THUMB not in raised:
        across = [(-0.37, 0.24, 0.15), (-0.20, 0.06, 0.125), (0.06, 0.0, 0.105)]
        beside = [(-0.36, 0.22, 0.14), (-0.42, -0.06, 0.11)]
        chains.append(across if pose.palm_side else beside)
    return chains


def paint_arm(canvas: Image, pose: Pose, look: Look) -> None:
    for chain, colour in ((ARM, scaled(look.skin, 0.93)), (SLEEVE, look.sleeve), (BAND, scaled(look.sleeve, 1.12))):
        stretch(canvas, pose.place(chain), scaled(colour, 0.42), OUTLINE * pose.unit)
        shade(canvas, pose.place(chain), colour, look.light)


def paint_mitten(canvas: Image, pose: Pose, look: Look) -> None:
    line, grow = scaled(look.wool, 0.4), OUTLINE * pose.unit
    pale = mixed(look.wool, (250, 246, 238), 0.78)
    thumb = pose.place(MITTEN_THUMB)
    fill(canvas, pose.place(MITTEN), line, grow)
    stretch(canvas, thumb, line, grow)
    shade(canvas, pose.place(MITTEN), look.wool, look.light, closed=True)
    shade(canvas, thumb, look.wool, look.light)
    for row, tall in ((-0.52, 0.07), (-0.18, 0.07)):
        zigzag = [(-0.36 + 0.12 * step, row + (tall if step % 2 else -tall), 0.0) for step in range(7)]
        polyline(canvas, pose.place(zigzag), pale, 0.06 * pose.unit)
    for column in range(-2, 3):
        stretch(canvas, pose.place([(0.14 * column - 0.02, -0.35, 0.035)] * 2), pale)
    cuff = [(-0.30, 0.52, 0.13), (0.28, 0.52, 0.13)]
    stretch(canvas, pose.place(cuff), line, grow)
    shade(canvas, pose.place(cuff), pale, look.light)
    for rib in range(-3, 4):
        polyline(canvas, pose.place([(0.1 * rib, 0.44, 0), (0.1 * rib, 0.61, 0)]), scaled(pale, 0.8), 0.02 * pose.unit)


def paint_creases(canvas: Image, pose: Pose, line: Colour) -> None:
    faint = mixed(line, scaled(line, 2.0), 0.55)
    heart: Chain = [(0.36, -0.10, 0), (0.10, -0.13, 0), (-0.12, -0.24, 0)]
    life: Chain = [(-0.30, -0.12, 0), (-0.06, 0.02, 0), (-0.04, 0.34, 0)]
    for crease in (heart, life):
        polyline(canvas, pose.place(crease), faint, 0.022 * pose.unit)


def paint_nails(canvas: Image, pose: Pose, look: Look, raised: list[Chain]) -> None:
    for _, (x1, y1, _), (x2, y2, radius) in raised:
        before = (x2 + 0.10 * (x1 - x2), y2 + 0.10 * (y1 - y2), 0.52 * radius)
        nail = pose.place([before, (x2, y2, 0.52 * radius)])
        stretch(canvas, nail, scaled(look.skin, 0.68), 0.018 * pose.unit)
        stretch(canvas, nail, mixed(look.skin, (255, 226, 222), 0.55))
