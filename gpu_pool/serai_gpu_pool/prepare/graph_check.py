"""May this graph, which our own preparation wrote, be opened by its path? Answered from its bytes alone.

The rules are those of `onnx_check`, with two differences: operators of the runtime's own layout for convolutions are
allowed, and so are weights in another file, if that is the one beside the graph and every range lies inside of it.
"""

import re

from serai_gpu_pool.device import onnx_check
from serai_gpu_pool.formats.base import ModelFileError

WEIGHTS = "weights.bin"

#: Written by the optimiser in place of standard operators; no model that is published may use it.
_OWN_DOMAINS = frozenset((b"com.microsoft.nchwc",))
#: Each is a mapping of its own, and the kernel gives a process 65,530 of them for all its models.
_MAX_EXTERNAL = 2_000
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
#: Rearranged weights: what they are, then offset, length and checksum of each part.
_PREPACKED = re.compile(r"prepacked_\d{1,4}")
_PART = re.compile(r"(\d{1,18});(\d{1,18});\d{0,20}")
_NUMBER = re.compile(r"\d{1,18}")

#: First byte and end, in the weights file.
Range = tuple[int, int]


def check_prepared_graph(data: bytes, weights_bytes: int) -> list[Range]:
    """Where the weights lie that a run without rearranging reads.

    Raises ModelFileError.
    """
    walk = _PreparedWalk(memoryview(data), weights_bytes)
    walk.model()
    if not walk.num_graphs:
        raise ModelFileError("the file is not an ONNX model: it has no graph")
    return walk.raw


class _PreparedWalk(onnx_check.Walk):
    def __init__(self, data: memoryview, weights_bytes: int) -> None:
        super().__init__(data)
        self._weights_bytes = weights_bytes
        self.raw: list[Range] = []

    def _node(self, data: memoryview, depth: int) -> None:
        domains = [bytes(value) for number, value in self._messages(data) if number == onnx_check._NODE_DOMAIN]
        if not domains or not _OWN_DOMAINS.issuperset(domains):
            super()._node(data, depth)
            return
        self._nodes += 1
        for number, value in self._messages(data):
            if number == onnx_check._NODE_ATTRIBUTE:
                self._attribute(value, depth)

    def _tensor(self, data: memoryview) -> None:
        entries: dict[str, str] = {}
        for number, value in self._each(data):
            if number != onnx_check._TENSOR_EXTERNAL:
                continue
            if isinstance(value, int):
                raise ModelFileError("the graph is not ours: an entry about weights is a number")
            key, text = self._entry(value)
            if key in entries:
                raise ModelFileError("the graph is not ours: it says twice where weights are")
            entries[key] = text
        if entries:
            self._external(entries)

    def _entry(self, data: memoryview) -> tuple[str, str]:
        fields = {number: bytes(value) for number, value in self._messages(data)}
        key, text = fields.get(_ENTRY_KEY, b""), fields.get(_ENTRY_VALUE, b"")
        return key.decode("utf-8", "replace"), text.decode("utf-8", "replace")

    def _external(self, entries: dict[str, str]) -> None:
        if entries.pop("location", "") != WEIGHTS:
            raise ModelFileError(f"the graph is not ours: it has weights elsewhere than in {WEIGHTS}")
        offset, length = entries.pop("offset", "0"), entries.pop("length", "")
        if not _NUMBER.fullmatch(offset) or not _NUMBER.fullmatch(length):
            raise ModelFileError("the graph is not ours: a place of weights is no number")
        self.raw.append(self._inside(int(offset), int(length)))
        if len(self.raw) > _MAX_EXTERNAL:
            raise ModelFileError(f"the graph has more than {_MAX_EXTERNAL} weights in another file")
        for key, text in entries.items():
            parts = text.split("|")[1:]
            matches = [_PART.fullmatch(part) for part in parts]
            if not _PREPACKED.fullmatch(key) or not parts or not all(matches):
                raise ModelFileError(f'the graph is not ours: unknown entry "{key[:64]}" about weights')
            for match in matches:
                assert match, "all of them were asked"
                self._inside(int(match[1]), int(match[2]))

    def _inside(self, offset: int, length: int) -> Range:
        if offset + length > self._weights_bytes:
            raise ModelFileError(f"the graph is not ours: weights beyond the end of {WEIGHTS}")
        return offset, offset + length
