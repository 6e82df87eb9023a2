"""A picture -> numbers that tell what it looks like: of training pictures, and of those that are served."""

import cv2

from stages.vision.images import Image


def brightness(image: Image) -> float:
    """Mean of the grey picture, 0 to 255."""
    return float(cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0])


def sharpness(image: Image) -> float:
    """Variance of the grey picture's Laplacian (Pech-Pacheco et al., 2000): 0 if plain, low out of focus."""
    _, deviation = cv2.meanStdDev(cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.CV_16S))
    return float(deviation[0, 0]) ** 2
