"""Photos from outside: bytes, base64 text or a data URL in, an upright Pillow image out.

Nothing here is believed: the format is one of five, the size is checked before a pixel is decoded, and whatever goes
wrong in a decoder is the caller's InputError.
"""

import base64
import binascii
import io
import warnings

import numpy as np
from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
ACCEPTED = (
    "send a JPEG, PNG, WebP, GIF or BMP photo: its bytes, its base64 text, a data:image/...;base64,... URL, "
    'or {"image": either text}'
)
#: EXIF's tag for how the camera was held, and what turns each value upright.
ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class InputError(Exception):
    """The caller's input is at fault, and the message says how to mend it."""

    error_type = "InputError"


def read(input, max_pixels, enough=None):
    """The photo in `input`, upright, mode RGB or (with transparency) RGBA; of an animation, the first frame.

    Args:
        input: bytes; base64 text or data URL; or {"image": one of these}.
        max_pixels: width times height beyond which the photo is refused.
        enough: pixels a side the caller can make use of; a larger JPEG may then be decoded at a fraction of its size.

    Raises:
        InputError: it is no photo, a damaged one, or too large.
    """
    raw = to_bytes(input)
    try:
        image = _open(raw, max_pixels)
        if enough is not None:
            image.draft(None, (enough, enough))
        image.load()
        return _upright(_eight_bit(image), _orientation(image))
    except (InputError, MemoryError):
        raise
    except Exception as error:  # decoders of hostile files raise nearly anything
        raise InputError(f"the photo is damaged or cut short ({error}); {ACCEPTED}") from error


def to_bytes(input):
    """The file's bytes, out of any of the forms a caller may send."""
    if isinstance(input, dict):
        if "image" not in input:
            raise InputError(f'the object has no "image"; {ACCEPTED}')
        input = input["image"]
    if isinstance(input, str):
        input = _from_text(input.strip())
    if not isinstance(input, bytes | bytearray | memoryview):
        raise InputError(f"a {type(input).__name__} is no photo; {ACCEPTED}")
    if not len(input):
        raise InputError(f"the input is empty; {ACCEPTED}")
    return bytes(input)


def _from_text(text):
    if text[:5].lower() == "data:" and not text.startswith("data://"):
        head, comma, text = text.partition(",")
        kind = head[5:].split(";")[0].strip().lower() or "text/plain"
        if not comma or not head.lower().endswith(";base64") or not kind.startswith("image/"):
            raise InputError(f"a data URL of type {kind[:40]} that is no base64 image; {ACCEPTED}")
    elif "://" in text[:20]:
        raise InputError(f"addresses are not fetched: the algorithm has no network; {ACCEPTED}")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"the text is not base64 ({error}); {ACCEPTED}") from error


def _open(raw, max_pixels):
    """The image with its header read and its size checked, no pixel decoded."""
    too_large = f"the photo has more than {max_pixels // 1_000_000} million pixels: scale it down first"
    try:
        with warnings.catch_warnings():
            # Pillow warns above its own limit and refuses above twice that; ours is checked below and named.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(raw), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise InputError(too_large) from error
    except Image.UnidentifiedImageError as error:
        raise InputError(f"{len(raw)} bytes that are no photo; {ACCEPTED}") from error
    if image.width * image.height > max_pixels:
        raise InputError(f"{too_large} (it is {image.width} x {image.height})")
    return image


def _orientation(image):
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # a broken tag is no reason to refuse a photo whose pixels are whole
        return 1


def _upright(image, orientation):
    turn = UPRIGHT.get(orientation)
    return image if turn is None else image.transpose(turn)


def _eight_bit(image):
    """RGB or RGBA with 8 bits a channel, from whatever mode the file has."""
    if image.mode.startswith("I"):
        # Pillow would clip 16-bit greys at 255 instead of scaling them.
        image = Image.fromarray((np.asarray(image, dtype=np.float32) / 257).clip(0, 255).astype(np.uint8))
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return image if image.mode == mode else image.convert(mode)


def on_white(image):
    """The image as RGB, what is transparent filled with white."""
    if image.mode != "RGBA":
        return image
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")
