"""Element types: the protocol's names and NumPy's."""

from serai_gateway.errors import InvalidRequest

#: Name in v2 -> NumPy's name, bytes of one element. BYTES has no fixed size and BF16 no form in NumPy.
DATATYPES: dict[str, tuple[str, int]] = {
    "BOOL": ("bool", 1),
    "UINT8": ("uint8", 1),
    "UINT16": ("uint16", 2),
    "UINT32": ("uint32", 4),
    "UINT64": ("uint64", 8),
    "INT8": ("int8", 1),
    "INT16": ("int16", 2),
    "INT32": ("int32", 4),
    "INT64": ("int64", 8),
    "FP16": ("float16", 2),
    "FP32": ("float32", 4),
    "FP64": ("float64", 8),
}

#: NumPy's name -> name in v2, bytes of one element.
BY_DTYPE = {dtype: (name, size) for name, (dtype, size) in DATATYPES.items()}

#: Types that a model may have and that do not travel: named in metadata all the same.
_DESCRIBED_ONLY = {"string": "BYTES", "object": "BYTES", "bfloat16": "BF16"}


def read_datatype(text: str, where: str) -> tuple[str, int]:
    """NumPy's name and the bytes of one element. Raises InvalidRequest, which names `where`."""
    found = DATATYPES.get(text)
    if found is None:
        raise InvalidRequest(f"{where} has datatype {text[:32]!r}, which is not supported; there are {_NAMES}")
    return found


def describe_dtype(dtype: str) -> str:
    """The v2 name of a model's element type, as metadata has it."""
    known = BY_DTYPE.get(dtype)
    return known[0] if known else _DESCRIBED_ONLY.get(dtype, dtype.upper())


_NAMES = ", ".join(DATATYPES)
