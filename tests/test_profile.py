"""What tells of a picture whether the model is used to such."""

import cv2
import numpy as np
import pytest

from stages.vision.profile import brightness, sharpness


@pytest.mark.parametrize(("colour", "grey"), [((0, 0, 0), 0), ((255, 255, 255), 255), ((255, 0, 0), 76)])
def test_a_plain_picture_is_as_bright_as_its_grey_and_not_sharp(colour: tuple[int, int, int], grey: int) -> None:
    image = np.full((40, 60, 3), colour, np.uint8)
    assert brightness(image) == pytest.approx(grey)
    assert sharpness(image) == 0


def test_sharpness_is_the_variance_of_the_laplacian_and_falls_out_of_focus() -> None:
    image = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    laplacian = cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.CV_64F)
    assert sharpness(image) == pytest.approx(laplacian.var())
    assert sharpness(cv2.GaussianBlur(image, (0, 0), 3).astype(np.uint8)) < sharpness(image) / 2
