"""The photo without its background: U²-Net (small) finds what stands out, the rest becomes transparent."""

import io

import numpy as np
import photo
from PIL import Image

import serai

#: A phone's 12 million with room to spare; the answer is a PNG of the same size, several seconds' work above this.
MAX_PIXELS = 16_000_000
#: The net's fixed input and output, whatever the photo's proportions.
SIDE = 320
#: ImageNet's mean and deviation a channel, as the net was trained with.
MEAN = np.array((0.485, 0.456, 0.406), dtype=np.float32)
STD = np.array((0.229, 0.224, 0.225), dtype=np.float32)
#: The first of the net's seven outputs, which combines the six others.
MATTE = "1959"
#: zlib's level: 6 takes twice as long for a file 3 % smaller.
COMPRESSION = 3

_model = serai.model("u2netp")


def apply(input):
    image = photo.read(input, MAX_PIXELS)
    matte = _model.run({"input.1": to_input(image)}, [MATTE])[MATTE]
    return to_png(cut(image, to_alpha(matte[0, 0])))


def to_input(image):
    """The whole photo squeezed to float32 [1, 3, 320, 320], brightest value 1 before normalising."""
    small = photo.on_white(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    pixels = np.asarray(small, dtype=np.float32)
    pixels = pixels / max(float(pixels.max()), 1.0)
    return np.ascontiguousarray(((pixels - MEAN) / STD).transpose(2, 0, 1)[None])


def to_alpha(matte):
    """The net's answer [320, 320] stretched to 0..255, as uint8; a photo without any contrast in it stays as it is."""
    low, high = float(matte.min()), float(matte.max())
    if high - low < 1e-6:
        return np.full(matte.shape, 255, dtype=np.uint8)
    return ((matte - low) * (255 / (high - low)) + 0.5).astype(np.uint8)


def cut(image, alpha):
    """The photo at its own size, RGBA; where nothing is seen, nothing is kept to be uncovered later."""
    mask = Image.fromarray(alpha).resize(image.size, Image.Resampling.BICUBIC)
    if image.mode == "RGBA":
        mask = Image.fromarray(np.minimum(np.asarray(mask), np.asarray(image.getchannel("A"))))
    result = image.convert("RGBA")
    result.putalpha(mask)
    result.paste((0, 0, 0, 0), mask=mask.point(lambda value: 0 if value else 255))
    return result


def to_png(image):
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=COMPRESSION)
    return file.getvalue()
