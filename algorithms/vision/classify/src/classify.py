"""What is in this photo? MobileNetV2's five best guesses out of ImageNet's thousand."""

from pathlib import Path

import numpy as np
import photo
from PIL import Image

import serai

#: Above any camera's usual 12-24 million, below what a decoded photo (4 bytes a pixel) may take of 1 GiB.
MAX_PIXELS = 40_000_000
#: The net saw the middle 224 of pictures whose shorter side was 256.
SIDE = 224
SHORTER_SIDE = 256
TOP = 5

LABELS = Path(__file__).with_name("labels.txt").read_text(encoding="utf-8").splitlines()
_model = serai.model("mobilenet")


def apply(input):
    image = photo.read(input, MAX_PIXELS, enough=2 * SHORTER_SIDE)
    logits = _model.run({"pixels": to_pixels(image)[None]})["logits"]
    return {"labels": best(logits[0])}


def to_pixels(image):
    """The middle of the photo as uint8 [224, 224, 3].

    Scaling the shorter side to 256 and cutting 224 out of the middle, in one step: a photo of a million by one pixel
    never becomes a larger one on the way.
    """
    side = min(image.size) * SIDE / SHORTER_SIDE
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(photo.on_white(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=box)))


def best(logits):
    """The likeliest labels with their probabilities, likeliest first."""
    weights = np.exp(logits - logits.max())
    probabilities = weights / weights.sum()
    order = probabilities.argsort()[::-1][:TOP]
    return [{"label": LABELS[i], "probability": round(float(probabilities[i]), 4), "index": int(i)} for i in order]
