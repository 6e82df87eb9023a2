"""Pictures with a boxed face -> the same made harder: small, turned, dark, blurred, mirrored, cut; which are hidden.

A box is (1, 4) in px. That of a turned face is the box of the ellipse that the upright box encloses: its corners show
no face.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from stages.files import read_json
from stages.params import FaceParams
from stages.vision.boxes import Boxes, clip, from_yolo
from stages.vision.faces import Blur, covered, regions
from stages.vision.images import Image, read_image

Harder = Callable[[Image, Boxes], tuple[Image, Boxes]]

ENOUGH = 0.9  # of a face's box: less hidden, and the face is shown
GREY = 114
FRAME = (640, 480)


def boxed_faces(folder: Path) -> list[tuple[Image, Boxes]]:
    """Each picture of folder/images with the face that folder/faces.json boxes."""
    faces = []
    for name, entry in sorted(read_json(folder / "faces.json").items()):
        image = read_image(folder / "images" / name)
        height, width = image.shape[:2]
        faces.append((image, clip(from_yolo(np.array(entry["faces"][:1]), width, height), width, height)))
    return faces


def hidden(blur: Blur, params: FaceParams, faces: list[tuple[Image, Boxes]], change: str) -> Iterator[bool]:
    """For each face, changed in each of the ways that go by that name, whether enough of its box is hidden."""
    for image, box in faces:
        for harder in CHANGES[change]:
            picture, face = harder(image, box)
            height, width = picture.shape[:2]
            found = regions(blur(picture).faces, params.margin, width, height)
            yield bool(covered(face, found, width, height)[0] >= ENOUGH)


def shrunk(px: int) -> Harder:
    """The whole picture, so that the face's longer side has that many px."""

    def harder(image: Image, box: Boxes) -> tuple[Image, Boxes]:
        height, width = image.shape[:2]
        scale = px / (box[0, 2:] - box[0, :2]).max()
        size = (round(width * scale), round(height * scale))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        return small.astype(np.uint8), box * as_boxes(
            size[0] / width, size[1] / height, size[0] / width, size[1] / height
        )

    return harder


def far(px: int, background: Callable[[Image], Image]) -> Harder:
    """Shrunk so, and put in the middle of a picture of the usual size."""

    def harder(image: Image, box: Boxes) -> tuple[Image, Boxes]:
        small, face = shrunk(px)(image, box)
        picture = background(image)
        left, top = (FRAME[0] - small.shape[1]) // 2, (FRAME[1] - small.shape[0]) // 2
        picture[top : top + small.shape[0], left : left + small.shape[1]] = small
        return picture, face + as_boxes(left, top, left, top)

    return harder


def grey(image: Image) -> Image:
    return np.full((FRAME[1], FRAME[0], 3), GREY, np.uint8)


def its_colours(image: Image) -> Image:
    """The picture itself, so blurred that only light and colour are left."""
    patches = cv2.resize(image, (8, 6), interpolation=cv2.INTER_AREA)
    return cv2.resize(patches, FRAME, interpolation=cv2.INTER_CUBIC).astype(np.uint8)


def turned(degrees: float) -> Harder:
    """Counter-clockwise, in a frame that loses no corner."""

    def harder(image: Image, box: Boxes) -> tuple[Image, Boxes]:
        height, width = image.shape[:2]
        cos, sin = abs(np.cos(np.deg2rad(degrees))), abs(np.sin(np.deg2rad(degrees)))
        frame = np.array([width * cos + height * sin, width * sin + height * cos])
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
        turn[:, 2] = turn[:, 2] + (frame - [width, height]) / 2
        size = (round(frame[0]), round(frame[1]))
        picture = cv2.warpAffine(image, turn, size, borderValue=(GREY, GREY, GREY)).astype(np.uint8)
        (across, down), centre = (box[0, 2:] - box[0, :2]) / 2, turn @ [*(box[0, :2] + box[0, 2:]) / 2, 1]
        half = np.array([np.hypot(across * cos, down * sin), np.hypot(across * sin, down * cos)])
        return picture, clip(as_boxes(*(centre - half), *(centre + half)), *size)

    return harder


def darker(share: float) -> Harder:
    return lambda image, box: ((image * share).astype(np.uint8), box)


def out_of_focus(sigma: float) -> Harder:
    """sigma in px: the faces are 140 to 270 high."""
    return lambda image, box: (cv2.GaussianBlur(image, (0, 0), sigma).astype(np.uint8), box)


def mirrored(image: Image, box: Boxes) -> tuple[Image, Boxes]:
    left, top, right, bottom = box[0]
    width = image.shape[1]
    return np.ascontiguousarray(image[:, ::-1]), as_boxes(width - right, top, width - left, bottom)


def cut(share: float, side: str) -> Harder:
    """The picture cropped from that side so far that it takes this share of the face."""

    def harder(image: Image, box: Boxes) -> tuple[Image, Boxes]:
        left, top, right, bottom = 0, 0, image.shape[1], image.shape[0]
        across, down = share * (box[0, 2:] - box[0, :2])
        match side:
            case "left":
                left = round(box[0, 0] + across)
            case "right":
                right = round(box[0, 2] - across)
            case "top":
                top = round(box[0, 1] + down)
            case "bottom":
                bottom = round(box[0, 3] - down)
        picture = np.ascontiguousarray(image[top:bottom, left:right])
        return picture, clip(box - as_boxes(left, top, left, top), right - left, bottom - top)

    return harder


def as_boxes(*corners: float) -> Boxes:
    return np.array([corners], np.float32)


SIDES = ("left", "right", "top", "bottom")
CHANGES: dict[str, list[Harder]] = {
    "upright": [lambda image, box: (image, box)],
    "mirrored": [mirrored],
    "shrunk to 24 px": [shrunk(24), far(24, grey), far(24, its_colours)],
    "turned by 15": [turned(15), turned(-15)],
    "turned by 45": [turned(45), turned(-45)],
    "turned by 90": [turned(90), turned(-90)],
    "upside down": [turned(180)],
    "a quarter as bright": [darker(0.25)],
    "out of focus": [out_of_focus(4), out_of_focus(8)],
    "cut by 25 %": [cut(0.25, side) for side in SIDES],
    "cut by 50 %": [cut(0.5, side) for side in SIDES],
}
