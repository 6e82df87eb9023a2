"""A generator -> the room behind the hands: one of six scenes with things standing about."""

from collections.abc import Callable

import numpy as np

from stages.sources.strokes import Colour, fill, mixed, polygon, scaled, stretch
from stages.vision.images import Image

Canvas = Image
Rng = np.random.Generator

PALETTES: list[list[Colour]] = [  # wall, floor, then what stands about
    [(214, 226, 226), (160, 124, 96), (38, 70, 83), (42, 157, 143), (233, 196, 106), (231, 111, 81)],
    [(245, 232, 215), (120, 96, 88), (181, 101, 118), (53, 80, 112), (109, 89, 122), (234, 172, 139)],
    [(187, 209, 190), (96, 82, 70), (52, 78, 65), (163, 177, 138), (220, 120, 90), (240, 230, 200)],
    [(88, 104, 132), (50, 54, 72), (252, 191, 73), (214, 40, 40), (234, 226, 183), (0, 128, 150)],
    [(232, 204, 215), (150, 130, 150), (94, 84, 142), (159, 134, 192), (255, 183, 195), (67, 97, 138)],
    [(196, 216, 235), (104, 120, 104), (2, 62, 138), (0, 150, 199), (255, 209, 102), (239, 71, 111)],
    [(70, 92, 84), (40, 48, 46), (188, 160, 100), (218, 215, 205), (140, 60, 50), (96, 140, 120)],
    [(238, 238, 228), (200, 176, 140), (17, 75, 95), (26, 147, 111), (136, 212, 152), (243, 150, 60)],
]


def paint_scene(width: int, height: int, rng: Rng) -> Canvas:
    """A background of its own for each state of rng, (height, width, 3)."""
    palette = PALETTES[rng.integers(len(PALETTES))]
    canvas = wash(width, height, scaled(palette[0], 1.06), scaled(palette[0], 0.84))
    SCENES[rng.integers(len(SCENES))](canvas, palette, rng)
    return canvas


def wash(width: int, height: int, above: Colour, below: Colour) -> Canvas:
    """From one colour to the other, top to bottom."""
    row = np.arange(height)[:, None, None]
    columns = (np.array(above) * (height - row) + np.array(below) * row) // height
    return np.broadcast_to(columns, (height, width, 3)).astype(np.uint8, order="C")


def desk(canvas: Canvas, palette: list[Colour], rng: Rng) -> None:
    """A table of planks, with cups, balls and pencils on it."""
    height, width = canvas.shape[:2]
    top = height * int(rng.integers(55, 75)) // 100
    planks = int(rng.integers(3, 6))
    for plank in range(planks):
        upper, lower = top + (height - top) * plank // planks, top + (height - top) * (plank + 1) // planks
        canvas[upper:lower] = scaled(palette[1], 0.92 + 0.04 * int(rng.integers(0, 6)))
        canvas[upper : upper + max(1, height // 160)] = scaled(palette[1], 0.7)
    for _ in range(int(rng.integers(3, 7))):
        thing = (cup, ball, pencil)[rng.integers(3)]
        x, y = float(rng.integers(0, width)), float(rng.integers(top, height))
        thing(canvas, x, y, height * int(rng.integers(6, 12)) / 100, pick(palette, rng))


def shelf(canvas: Canvas, palette: list[Colour], rng: Rng) -> None:
    """Books side by side: upright bars, which no finger is."""
    height, width = canvas.shape[:2]
    rows = int(rng.integers(2, 4))
    for row in range(rows):
        floor = height * (row + 1) // rows
        x = int(rng.integers(0, width // 20))
        while x < width:
            thick = width * int(rng.integers(3, 9)) // 100
            tall = height // rows * int(rng.integers(55, 90)) // 100
            if rng.random() < 0.85:
                colour = mixed(pick(palette, rng), palette[0], 0.2)
                canvas[floor - tall : floor, x : x + thick] = colour
                canvas[floor - tall : floor, x : x + max(1, thick // 8)] = scaled(colour, 0.7)
                band = floor - tall * int(rng.integers(60, 85)) // 100
                canvas[band : band + max(1, tall // 14), x : x + thick] = mixed(colour, (255, 244, 214), 0.6)
            x += thick + max(1, width // 200)
        canvas[floor - height // 40 : floor] = palette[1]


def window(canvas: Canvas, palette: list[Colour], rng: Rng) -> None:
    """Sky, hills and a frame."""
    height, width = canvas.shape[:2]
    left, right = width * int(rng.integers(5, 30)) // 100, width * int(rng.integers(70, 95)) // 100
    top, bottom = height * int(rng.integers(4, 15)) // 100, height * int(rng.integers(70, 90)) // 100
    view = wash(right - left, bottom - top, (120, 178, 226), (236, 226, 206))
    hills(view, [mixed(palette[2], (200, 220, 220), 0.5), mixed(palette[2], (90, 130, 80), 0.5)], rng)
    canvas[top:bottom, left:right] = view
    bar = max(2, width // 50)
    frame = mixed(palette[1], (255, 255, 255), 0.55)
    for x in (left, (left + right) // 2, right):
        canvas[top - bar : bottom + bar, x - bar // 2 : x + bar // 2 + 1] = frame
    for y in (top, (top + bottom) // 2, bottom):
        canvas[max(0, y - bar // 2) : y + bar // 2 + 1, left - bar // 2 : right + bar // 2] = frame


def wallpaper(canvas: Canvas, palette: list[Colour], rng: Rng) -> None:
    """Stripes, dots or diamonds, pale on pale."""
    height, width = canvas.shape[:2]
    pitch = width * int(rng.integers(8, 18)) // 100
    ink = mixed(palette[0], pick(palette, rng), 0.35)
    kind = int(rng.integers(3))
    for column, x in enumerate(range(-pitch, width + pitch, pitch)):
        if kind == 0:
            canvas[:, max(0, x) : max(0, x + pitch // 2)] = ink
            continue
        for y in range(-pitch, height + pitch, pitch):
            at = float(y + pitch // 2 * (column % 2))
            r = pitch * 0.22
            if kind == 1:
                stretch(canvas, [(float(x), at, r)], ink)
            else:
                polygon(canvas, [(x - 2 * r, at), (x, at - 2 * r), (x + 2 * r, at), (x, at + 2 * r)], ink)


def evening(canvas: Canvas, palette: list[Colour], rng: Rng) -> None:
    """Lamps out of focus, translucent."""
    height, width = canvas.shape[:2]
    canvas[:] = wash(width, height, scaled(palette[2], 0.45), scaled(palette[1], 0.7))
    for _ in range(int(rng.integers(14, 30))):
        layer = canvas.copy()
        x, y = float(rng.integers(0, width)), float(rng.integers(0, height))
        lamp = mixed(pick(palette, rng), (255, 240, 200), 0.35)
        stretch(layer, [(x, y, height * int(rng.integers(3, 12)) / 100)], lamp)
        opacity = int(rng.integers(40, 110))
        canvas[:] = (canvas.astype(np.uint16) * (256 - opacity) + layer.astype(np.uint16) * opacity) >> 8


def outdoors(canvas: Canvas, palette: list[Colour], rng: Rng) -> None:
    """Sun, hills and round trees."""
    height, width = canvas.shape[:2]
    canvas[:] = wash(width, height, mixed(palette[0], (110, 170, 230), 0.6), (250, 232, 208))
    sun = (float(rng.integers(0, width)), height * 0.2, height * 0.08)
    stretch(canvas, [sun], (255, 240, 190))
    greens = [mixed(palette[2], (190, 205, 190), 0.6), mixed(palette[3], (120, 150, 100), 0.6), (86, 118, 74)]
    hills(canvas, greens, rng)
    for _ in range(int(rng.integers(2, 6))):
        x, y = float(rng.integers(0, width)), height * int(rng.integers(65, 95)) / 100
        size = height * int(rng.integers(6, 12)) / 100
        stretch(canvas, [(x, y, size * 0.18), (x, y - 2 * size, size * 0.1)], (96, 72, 54))
        leaves = mixed(pick(palette, rng), (70, 120, 70), 0.6)
        stretch(canvas, [(x, y - 2 * size, size)], scaled(leaves, 0.8))
        stretch(canvas, [(x - 0.2 * size, y - 2.2 * size, size * 0.7)], leaves)


def hills(canvas: Canvas, colours: list[Colour], rng: Rng) -> None:
    height, width = canvas.shape[:2]
    for layer, colour in enumerate(colours):
        for _ in range(3):
            radius = width * int(rng.integers(25, 50)) / 100
            crest = height * (45 + 18 * layer + int(rng.integers(0, 12))) / 100
            stretch(canvas, [(float(rng.integers(0, width)), crest + radius, radius)], colour)


def cup(canvas: Canvas, x: float, y: float, size: float, colour: Colour) -> None:
    stretch(canvas, [(x + size * 0.75, y - size * 0.6, size * 0.38)], scaled(colour, 0.8))
    stretch(canvas, [(x + size * 0.75, y - size * 0.6, size * 0.2)], scaled(colour, 0.4))
    body = [(x - size * 0.7, y - size * 1.3, size * 0.1), (x + size * 0.7, y - size * 1.3, size * 0.1)]
    body += [(x + size * 0.55, y, size * 0.12), (x - size * 0.55, y, size * 0.12)]
    fill(canvas, body, colour)
    stretch(canvas, [(x - size * 0.4, y - size * 1.1, size * 0.12), (x - size * 0.35, y - 0.1 * size, size * 0.1)],
            mixed(colour, (255, 255, 255), 0.4))  # fmt: skip


def ball(canvas: Canvas, x: float, y: float, size: float, colour: Colour) -> None:
    for step in range(5):
        r = size * (1 - 0.18 * step)
        stretch(canvas, [(x - 0.3 * (size - r), y - size - 0.4 * (size - r), r)], scaled(colour, 0.75 + 0.09 * step))


def pencil(canvas: Canvas, x: float, y: float, size: float, colour: Colour) -> None:
    tip, end = (x + 1.6 * size, y - 0.3 * size), (x - 1.4 * size, y + 0.2 * size)
    stretch(canvas, [(*end, size * 0.13), (*tip, size * 0.13)], colour)
    stretch(canvas, [(*tip, size * 0.13), (tip[0] + 0.35 * size, tip[1] - 0.06 * size, size * 0.02)], (222, 184, 135))


def pick(palette: list[Colour], rng: Rng) -> Colour:
    return palette[2 + int(rng.integers(len(palette) - 2))]


SCENES: list[Callable[[Canvas, list[Colour], Rng], None]] = [desk, shelf, window, wallpaper, evening, outdoors]


def soften(image: Image, times: int) -> Image:
    """Blur by [1 2 1] / 4 both ways, in whole numbers: the same pixels on every processor."""
    for _ in range(times):
        wide = np.pad(image, ((1, 1), (1, 1), (0, 0)), "edge").astype(np.uint16)
        tall = wide[:-2] + 2 * wide[1:-1] + wide[2:]
        image = ((tall[:, :-2] + 2 * tall[:, 1:-1] + tall[:, 2:] + 8) >> 4).astype(np.uint8)
    return image
