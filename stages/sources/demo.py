"""A seed -> drawn pictures of raised fingers, with every oddity that real data brings, so that each rule meets a case.

The same bytes on every machine: whole numbers or IEEE arithmetic (hand.py), PCG64, and JPEG, whose encoder gives the
same bytes with and without SIMD. A picture depends on the seed and its number, not on how many are drawn.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from stages.params import DemoParams
from stages.sources import Source, SourceAsset
from stages.sources.hand import (
    INDEX,
    LITTLE,
    MIDDLE,
    RING,
    THUMB,
    Look,
    Pose,
    box_of,
    paint_hand,
    paint_silhouette,
)
from stages.sources.scene import Rng, paint_scene, soften
from stages.sources.strokes import Colour
from stages.vision.annotations import ACCEPTED, Annotation, Rectangle
from stages.vision.images import Image, encode_jpeg

FRAMES = 10  # of a session
TAKE = 2  # frames between which nobody moves much
FINE = 4  # a picture is painted this many times larger, then averaged
QUALITY = 92  # of the JPEGs
MARGIN = 4  # px of scene around the picture, for a camera that trembles

SKINS: list[Colour] = [
    (250, 214, 184), (240, 198, 162), (230, 180, 142), (212, 156, 114),
    (184, 126, 86), (148, 97, 64), (110, 71, 48), (80, 52, 38),
]  # fmt: skip
CLOTHES: list[Colour] = [
    (58, 92, 160), (186, 64, 72), (70, 130, 96), (232, 180, 70),
    (96, 78, 130), (220, 220, 214), (60, 62, 72), (226, 128, 88),
]  # fmt: skip
WOOLS: list[Colour] = [(190, 58, 70), (46, 104, 160), (60, 128, 92), (120, 76, 140), (222, 150, 50)]
LIGHTS: dict[str, Colour] = {  # gains in 1/256
    "daylight": (256, 256, 256),
    "lamplight": (270, 250, 216),
    "shade": (232, 244, 262),
    "dusk": (178, 168, 176),
    "sun": (292, 288, 276),
}
RAISED: dict[int, list[frozenset[int]]] = {  # count: the ways in which people show it, the usual ones more often
    0: [frozenset()],
    1: [frozenset({INDEX}), frozenset({INDEX}), frozenset({THUMB}), frozenset({LITTLE})],
    2: [frozenset({INDEX, MIDDLE}), frozenset({INDEX, MIDDLE}), frozenset({THUMB, INDEX})],
    3: [frozenset({INDEX, MIDDLE, RING}), frozenset({THUMB, INDEX, MIDDLE}), frozenset({MIDDLE, RING, LITTLE})],
    4: [frozenset({INDEX, MIDDLE, RING, LITTLE})],
    5: [frozenset({THUMB, INDEX, MIDDLE, RING, LITTLE})],
}
CLASSES = 7  # the counts, and the mitten
SPELLINGS = [  # of those seven, by annotator
    ["0", "1", "2", "3", "4", "5", "unknown"],
    ["0-hand", "1-hand", "2-hand", "3-hand", "4-hand", "5-hand", "unknown-hand"],
    ["0_doigt", "1_doigt", "2_doigts", "3_doigts", "4_doigts", "5_doigts", "inconnu"],
    ["Fist", "One", "Two", "Three", "Four", "Five", "Other"],
    ["fingers-0", "finger-1", "fingers-2", "fingers-3", "fingers-4", "fingers-5", "Unknown"],
]


@dataclass(frozen=True)
class Hand:
    pose: Pose  # in px of the picture
    shows: int  # index in SPELLINGS


@dataclass(frozen=True)
class Session:
    """One person in one room and one light, before one camera, annotated by one annotator."""

    number: int
    width: int  # px
    height: int
    scene: Image  # FINE times larger, with the margin
    look: Look
    light: str
    haze: int  # rounds of softening
    takes: list[list[Hand]]


def draw(params: DemoParams) -> Source:
    summary = f"demo ({params.pictures} drawings, {params.image_size} px, seed {params.seed})"
    return Source(summary, params.pictures, drawings(params))


def drawings(params: DemoParams) -> Iterator[SourceAsset]:
    for first in range(0, params.pictures, FRAMES):
        number = first // FRAMES
        session = open_session(number, params.image_size, generator(params.seed, number))
        for picture in range(first, min(first + FRAMES, params.pictures)):
            yield photograph(session, picture, generator(params.seed, number, picture))


def generator(*entropy: int) -> Rng:
    return np.random.Generator(np.random.PCG64(entropy))


def open_session(number: int, side: int, rng: Rng) -> Session:
    short = side * 5 // 6
    width, height = [(side, side), (side, short), (short, side)][rng.integers(3)]
    scene = paint_scene((width + 2 * MARGIN) * FINE, (height + 2 * MARGIN) * FINE, rng)
    look = Look(
        skin=SKINS[rng.integers(len(SKINS))],
        sleeve=CLOTHES[rng.integers(len(CLOTHES))],
        wool=WOOLS[rng.integers(len(WOOLS))],
        light=[(-0.6, -0.8), (0.6, -0.8), (0.0, -1.0)][rng.integers(3)],
    )
    light = list(LIGHTS)[rng.integers(len(LIGHTS))]
    haze = [0, 0, 0, 1, 2][rng.integers(5)]
    return Session(number, width, height, scene, look, light, haze, rehearse(number, width, height, rng))


def rehearse(number: int, width: int, height: int, rng: Rng) -> list[list[Hand]]:
    """Every session shows each of the seven once, one or two hands a take, so that any split has all of them."""
    hands_per_take = [2, 2, 2, 1, 0] if number % 4 == 2 else [2, 2, 1, 1, 1]
    deck = iter(rng.permutation(CLASSES))
    takes = []
    for hands in rng.permutation(hands_per_take):
        centres = [0.5] if hands == 1 else [0.27, 0.73][:hands]
        takes.append([pose_hand(int(next(deck)), centre, hands == 1, width, height, rng) for centre in centres])
    return takes


def pose_hand(shows: int, centre: float, alone: bool, width: int, height: int, rng: Rng) -> Hand:
    """One alone is larger and may leave the picture below, so that its box reaches over the edge."""
    low, high = (0.22, 0.30) if alone else (0.18, 0.23)
    leaves = alone and rng.random() < 0.15
    ways = RAISED.get(shows)
    pose = Pose(
        x=width * uniform(rng, centre - (0.12 if alone else 0.03), centre + (0.12 if alone else 0.03)),
        y=height * (uniform(rng, 0.88, 0.94) if leaves else uniform(rng, 0.52, 0.68)),
        unit=min(width, height) * uniform(rng, low, high),
        turn=uniform(rng, -0.2, 0.2),
        mirrored=rng.random() < 0.5,
        palm_side=rng.random() < 0.5,
        spread=uniform(rng, 0.95, 1.25),
        raised=ways[rng.integers(len(ways))] if ways else None,
    )
    return Hand(pose, shows)


def photograph(session: Session, number: int, rng: Rng) -> SourceAsset:
    """One frame and what its annotator made of it. Now and then, something is odd."""
    hands = [replace(hand, pose=tremble(hand.pose, rng)) for hand in session.takes[number % FRAMES // TAKE]]
    if number % 90 == 44:  # nearly outside: too little of it to count
        hands.append(stray(session))
    image = develop(expose(session, [hand.pose for hand in hands], rng), session, rng)
    phone = session.number % 10 == 4  # held upright: it stores the pixels lying on their side
    content = lying(image) if phone else encode_jpeg(image, QUALITY)
    if number == 37:  # the upload broke off
        content = content[: len(content) // 2]
    named = number - 1 if number == 41 else number  # two assets of one file name
    return SourceAsset(
        key=f"{number:06d}",
        file_name=f"s{session.number:02d}_pic{named:05d}.jpg",
        content=content,
        width=session.width,
        height=session.height,
        tags=(f"light:{session.light}",),
        annotations=tuple(annotate(hands, number, SPELLINGS[session.number % len(SPELLINGS)])),
        origin="demo",
    )


def tremble(pose: Pose, rng: Rng) -> Pose:
    return replace(
        pose,
        x=pose.x + pose.unit * uniform(rng, -0.06, 0.06),
        y=pose.y + pose.unit * uniform(rng, -0.06, 0.06),
        unit=pose.unit * uniform(rng, 0.98, 1.02),
        turn=pose.turn + uniform(rng, -0.02, 0.02),
    )


def stray(session: Session) -> Hand:
    """An open hand of which the picture's left edge leaves a sliver."""
    unit = 0.2 * min(session.width, session.height)
    x, y = -0.36 * unit, 0.6 * session.height
    return Hand(Pose(x, y, unit, turn=0, mirrored=False, palm_side=True, spread=1, raised=RAISED[5][0]), 5)


def uniform(rng: Rng, low: float, high: float) -> float:
    return low + (high - low) * rng.random()


def expose(session: Session, poses: list[Pose], rng: Rng) -> Image:
    """Scene, shadows and hands, (height, width, 3)."""
    width, height = session.width, session.height
    top, left = (FINE * (MARGIN + rng.integers(-MARGIN, MARGIN + 1, 2))).tolist()
    canvas = session.scene[top : top + FINE * height, left : left + FINE * width].copy()
    room = average(canvas)
    mask = np.zeros_like(canvas)
    for pose in poses:
        fine = replace(pose, x=FINE * pose.x, y=FINE * pose.y, unit=FINE * pose.unit)
        paint_silhouette(mask, fine)
        paint_hand(canvas, fine, session.look)
    covered = average(mask)
    away = [round(-0.05 * min(width, height) * part) for part in session.look.light]
    shadow = soften(moved(covered, *away), 6)
    darkness = room.astype(np.int32) * shadow * (255 - covered.astype(np.int32)) * 2 // (5 * 255 * 255)
    return (average(canvas) - darkness).clip(0, 255).astype(np.uint8)


def develop(image: Image, session: Session, rng: Rng) -> Image:
    """What light and camera do to a picture: colour, fall-off towards the corners, blur, grain."""
    height, width = image.shape[:2]
    y, x = np.arange(height)[:, None, None] * 2 - height, np.arange(width)[None, :, None] * 2 - width
    falloff = 256 - 56 * (x * x + y * y) // (width * width + height * height)
    side = 256 + (round(-48 * session.look.light[0]) * -x) // width
    lit = image.astype(np.int64) * np.array(LIGHTS[session.light]) * falloff * side >> 24
    blurred = soften(lit.clip(0, 255).astype(np.uint8), session.haze)
    if rng.random() < 0.15:  # the camera moved
        blurred = smear(blurred)
    grain = rng.integers(-4, 5, image.shape)
    return (blurred + grain).clip(0, 255).astype(np.uint8)


def average(fine: Image) -> Image:
    """FINE times smaller. Adding slices is ten times as fast as a sum over two axes of a reshaped array."""
    wide = fine.astype(np.uint16)
    rows = sum((wide[start::FINE] for start in range(1, FINE)), wide[::FINE])
    cells = sum((rows[:, start::FINE] for start in range(1, FINE)), rows[:, ::FINE])
    return (cells // FINE**2).astype(np.uint8)


def moved(image: Image, right: int, down: int) -> Image:
    """Shifted by so many px; what comes in from outside repeats the edge."""
    rows = np.clip(np.arange(image.shape[0]) - down, 0, image.shape[0] - 1)
    columns = np.clip(np.arange(image.shape[1]) - right, 0, image.shape[1] - 1)
    return image[rows][:, columns]


def smear(image: Image) -> Image:
    wide = np.pad(image, ((0, 0), (1, 1), (0, 0)), "edge").astype(np.uint16)
    return ((wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]) // 3).astype(np.uint8)


def lying(image: Image) -> bytes:
    """JPEG of the picture a quarter to the left, and the EXIF entry by which viewers turn it back (6: to the right)."""
    content = encode_jpeg(np.ascontiguousarray(np.rot90(image)), QUALITY)
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)  # Orientation, one SHORT
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 1) + entry + bytes(4)
    return content[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + content[2:]


def annotate(hands: list[Hand], number: int, spelling: list[str]) -> Iterator[Annotation]:
    """Newest first, as the platform hands them over."""
    boxes = [rectangle(hand, spelling) for hand in hands]
    if number == 58:  # nobody came round to it
        return
    status = {19: "REFUSED", 33: "PENDING"}.get(number % 50, ACCEPTED)
    if number % 70 == 12:  # clicked twice
        boxes += boxes[:1]
    yield Annotation(status=status, rectangles=boxes)
    if number % 12 == 5:  # a first try with everything in the wrong place
        wrong = [box.model_copy(update={"x": box.x + box.w / 2, "label": spelling[0]}) for box in boxes]
        yield Annotation(status=ACCEPTED, rectangles=wrong)
    if number % 16 == 8:
        yield Annotation(status="REFUSED", rectangles=[])


def rectangle(hand: Hand, spelling: list[str]) -> Rectangle:
    x1, y1, x2, y2 = box_of(hand.pose)
    return Rectangle(x=x1, y=y1, w=x2 - x1, h=y2 - y1, label=spelling[hand.shows])
