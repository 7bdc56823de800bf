"""WAV files from outside: bytes in, one channel of float samples and their rate out.

Only what a recorder writes is read: PCM of 8, 16, 24 or 32 bits and IEEE floats of 32 or 64, any number of channels.
No size in the file is believed before it is compared with the bytes that are there.
"""

import base64
import binascii
import struct

import numpy as np

ACCEPTED = (
    "send a WAV file (PCM 8/16/24/32 bit or float 32/64 bit): its bytes, its base64 text, "
    'a data:audio/wav;base64,... URL, or {"audio": either text}'
)
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
#: What cannot seek back (a pipe, a stream) leaves this where the size of the data belongs: "until the end".
SIZE_UNKNOWN = 0xFFFFFFFF
#: Telephone at half its rate to studio converters; outside of this the header is broken.
RATES = range(4_000, 192_001)
#: The widest surround layouts have 24.
MAX_CHANNELS = 32


class InputError(Exception):
    """The caller's input is at fault, and the message says how to mend it."""

    error_type = "InputError"


def read(input, max_seconds):
    """The recording in `input` as (samples, rate): float32 in -1..1, channels averaged, and samples a second.

    Raises:
        InputError: it is no WAV file, a damaged one, of a kind that is not read, or longer than `max_seconds`.
    """
    raw = memoryview(to_bytes(input))
    kind, channels, rate, bits, data = _parse(raw)
    width = bits // 8
    frames = len(data) // (width * channels)
    if frames == 0:
        raise InputError("the WAV file holds no sound")
    if frames > max_seconds * rate:
        raise InputError(
            f"the recording is {frames / rate:.0f} s long; at most {max_seconds} s are taken: send it in parts"
        )
    samples = _decode(data[: frames * width * channels], kind, width)
    if not np.isfinite(samples).all():
        raise InputError("the recording holds samples that are no numbers (NaN or infinite)")
    mono = samples if channels == 1 else samples.reshape(frames, channels).mean(axis=1, dtype=np.float32)
    return np.clip(mono, -1, 1), rate


def to_bytes(input):
    """The file's bytes, out of any of the forms a caller may send."""
    if isinstance(input, dict):
        if "audio" not in input:
            raise InputError(f'the object has no "audio"; {ACCEPTED}')
        input = input["audio"]
    if isinstance(input, str):
        input = _from_text(input.strip())
    if not isinstance(input, bytes | bytearray | memoryview):
        raise InputError(f"a {type(input).__name__} is no recording; {ACCEPTED}")
    if not len(input):
        raise InputError(f"the input is empty; {ACCEPTED}")
    return bytes(input)


def _from_text(text):
    if text[:5].lower() == "data:" and not text.startswith("data://"):
        head, comma, text = text.partition(",")
        kind = head[5:].split(";")[0].strip().lower() or "text/plain"
        if not comma or not head.lower().endswith(";base64") or not kind.startswith("audio/"):
            raise InputError(f"a data URL of type {kind[:40]} that is no base64 audio; {ACCEPTED}")
    elif "://" in text[:20]:
        raise InputError(f"addresses are not fetched: the algorithm has no network; {ACCEPTED}")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"the text is not base64 ({error}); {ACCEPTED}") from error


def _parse(raw):
    """(kind, channels, rate, bits, bytes of the samples), all checked."""
    if len(raw) < 12 or raw[:4] != b"RIFF" or raw[8:12] != b"WAVE":
        raise InputError(f"{len(raw)} bytes that are no WAV file; {ACCEPTED}")
    form = None
    for name, size, body in _chunks(raw):
        if name == b"fmt ":
            form = _parse_form(body)
        elif name == b"data":
            if form is None:
                raise InputError("the WAV file has its data before its format")
            if size not in (len(body), SIZE_UNKNOWN):
                raise InputError(
                    f"the WAV file says {size} bytes of sound, but only {len(body)} follow: it is cut short"
                )
            return *form, body
    raise InputError("the WAV file ends before its sound begins")


def _chunks(raw):
    """Each (name, size as written, bytes that are there) of a RIFF file, in order."""
    at = 12
    while at + 8 <= len(raw):
        size = struct.unpack_from("<I", raw, at + 4)[0]
        yield bytes(raw[at : at + 4]), size, raw[at + 8 : at + 8 + size]
        at += 8 + size + (size & 1)


def _parse_form(body):
    if len(body) < 16:
        raise InputError("the WAV file's format is cut short")
    kind, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", body)
    if kind == EXTENSIBLE and len(body) >= 26:
        kind = struct.unpack_from("<H", body, 24)[0]
    if (kind, bits) not in {(PCM, 8), (PCM, 16), (PCM, 24), (PCM, 32), (FLOAT, 32), (FLOAT, 64)}:
        raise InputError(f"WAV format {kind} with {bits} bits is not read; {ACCEPTED}")
    if not 1 <= channels <= MAX_CHANNELS:
        raise InputError(f"the WAV file says {channels} channels; 1 to {MAX_CHANNELS} are read")
    if rate not in RATES:
        raise InputError(f"the WAV file says {rate} samples a second; {RATES[0]} to {RATES[-1]} are read")
    return kind, channels, rate, bits


def _decode(data, kind, width):
    """All samples as float32, channels still interleaved; integers scaled to -1..1."""
    if kind == FLOAT:
        with np.errstate(over="ignore"):  # a double beyond float32 becomes infinite, which the caller refuses
            return np.frombuffer(data, f"<f{width}").astype(np.float32)
    if width == 1:
        return (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128
    if width == 3:
        whole = np.zeros((len(data) // 3, 4), dtype=np.uint8)
        whole[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        return whole.view("<i4")[:, 0].astype(np.float32) / 2**31
    return np.frombuffer(data, f"<i{width}").astype(np.float32) / 2.0 ** (8 * width - 1)
