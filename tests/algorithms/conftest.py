import base64
import importlib.util
import struct
import sys
import zlib
from pathlib import Path

import pytest

# Tests are imported by path, not by package: what they share is, too.
_spec = importlib.util.spec_from_file_location("local_models", Path(__file__).with_name("local_models.py"))
assert _spec is not None and _spec.loader is not None
local_models = importlib.util.module_from_spec(_spec)
sys.modules["local_models"] = local_models
_spec.loader.exec_module(local_models)


@pytest.fixture(scope="module")
def algorithm(request):
    """The module of the algorithm that the test file names in `ALGORITHM`, with its real models behind it."""
    with local_models.loaded(request.module.ALGORITHM) as module:
        yield module


@pytest.fixture
def refused(algorithm):
    """Calls the algorithm with an input it must refuse as the caller's mistake; gives the message."""

    def call(input):
        with pytest.raises(Exception) as caught:
            algorithm.apply(input)
        assert getattr(caught.value, "error_type", None) == "InputError", repr(caught.value)
        return str(caught.value)

    return call


@pytest.fixture
def data_url():
    """Raw bytes and their type as a data URL."""
    return lambda raw, kind: f"data:{kind};base64,{base64.b64encode(raw).decode()}"


@pytest.fixture
def png_header():
    """A PNG that says it is `width` x `height`, with next to nothing behind that."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    def make(width, height):
        form = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        pixels = zlib.compress(bytes(1000))
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", form) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")

    return make
