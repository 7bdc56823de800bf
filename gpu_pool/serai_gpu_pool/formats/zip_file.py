"""Where the members of a zip archive lie. Our own reader: everything that two readers could see differently is refused.

PyTorch writes plain archives: no comment, no encryption, members one after the other, weights uncompressed and aligned,
and behind the directory the same figures once more with 64 bits. So there is no reason to accept anything else.
"""

import struct
import zlib
from typing import NamedTuple

from serai_gpu_pool.formats.base import ModelFileError, shown

#: Most members. A model with more than 100,000 tensors is none.
MAX_MEMBERS = 100_000
#: Compressed members are program text and small tables; this much text is fifty times a large model's.
MAX_PACKED_BYTES = 64 << 20
#: Between two members: what is left of a data descriptor (24 bytes), or padding up to an alignment of 64.
_MAX_GAP_BYTES = 128

_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q4sLQL")  # with the record that says where it is
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_STORED, _DEFLATED = 0, 8
_IS_ENCRYPTED, _SIZES_FOLLOW, _IS_UTF8 = 0x1, 0x8, 0x800


class Member(NamedTuple):
    name: str
    offset: int  # of its bytes, in the archive
    packed_bytes: int
    num_bytes: int
    is_packed: bool
    crc: int


class ZipFile:
    """The members of an archive, in the order in which they lie."""

    def __init__(self, data: memoryview) -> None:
        """Raises ModelFileError."""
        self._data = data
        self.members = _members(data)
        self._left = MAX_PACKED_BYTES

    def stored(self, name: str) -> memoryview:
        """The bytes of an uncompressed member, as they lie. Raises ModelFileError."""
        member = self._member(name)
        if member.is_packed:
            raise ModelFileError(f"{shown(name)} is compressed; save the model again with the framework itself")
        return self._data[member.offset : member.offset + member.num_bytes]

    def read(self, name: str) -> bytes:
        """The bytes of a small member, unpacked; the archive's all together have one limit. Raises ModelFileError."""
        member = self._member(name)
        self._left -= member.num_bytes
        if self._left < 0:
            raise ModelFileError(f"program text of more than {MAX_PACKED_BYTES >> 20} MiB")
        packed = self._data[member.offset : member.offset + member.packed_bytes]
        if member.is_packed:
            inflate = zlib.decompressobj(-15)
            try:
                content = inflate.decompress(packed, member.num_bytes + 1)
            except zlib.error:
                raise _damaged(f"{shown(name)} cannot be unpacked") from None
            if not inflate.eof or inflate.unused_data:
                raise _damaged(f"{shown(name)} is not as long as it says")
        else:
            content = bytes(packed)
        if len(content) != member.num_bytes or zlib.crc32(content) != member.crc:
            raise _damaged(f"the checksum of {shown(name)} is wrong")
        return content

    def _member(self, name: str) -> Member:
        try:
            return self.members[name]
        except KeyError:
            raise ModelFileError(f"{shown(name)} is missing in the archive") from None


def looks_like_zip(data: memoryview) -> bool:
    return bytes(data[:4]) == b"PK\x03\x04"


def _damaged(why: str) -> ModelFileError:
    return ModelFileError(f"a damaged or unusual zip archive: {why}; save the model again")


def _members(data: memoryview) -> dict[str, Member]:
    if len(data) < _END.size:
        raise _damaged("it is too short")
    end = len(data) - _END.size
    signature, disk, first_disk, here, count, size, start, comment = _END.unpack_from(data, end)
    if signature != b"PK\x05\x06" or comment:
        raise _damaged("it does not end where its directory ends (cut off, or something follows it)")
    if end == start + size + _END_64.size:
        end = _check_end_64(data, start, size, count)
    if disk or first_disk or here != count or count == 0xFFFF or start + size != end:
        raise _damaged("its directory is in another place than it says")
    if count > MAX_MEMBERS:
        raise _damaged(f"more than {MAX_MEMBERS:,} members")
    found: list[tuple[int, Member]] = []
    at = start
    for _ in range(count):
        if at + _ENTRY.size > end:
            raise _damaged("its directory is cut off")
        fields = _ENTRY.unpack_from(data, at)
        name_bytes, extra_bytes, comment_bytes = fields[10:13]
        begin = at + _ENTRY.size
        name = _name(bytes(data[begin : begin + name_bytes]), fields[3])
        found.append((fields[16], _entry(data, fields, name, start)))
        at = begin + name_bytes + extra_bytes + comment_bytes
    if at != end:
        raise _damaged("its directory is longer than its entries")
    _check_order(sorted(found), start)
    members = {member.name: member for _, member in sorted(found)}
    if len(members) != len(found):
        raise _damaged("two members have the same name")
    _check_folders(members)
    return members


def _check_end_64(data: memoryview, start: int, size: int, count: int) -> int:
    """The end of the directory, where the 64-bit figures after it are the same as the others."""
    at = start + size
    fields = _END_64.unpack_from(data, at)
    same = (b"PK\x06\x06", 44, 0, 0, count, count, size, start, b"PK\x06\x07", 0, at, 1)
    if (*fields[:2], *fields[4:]) != same:
        raise _damaged("its directory is described in two ways")
    return at


def _entry(data: memoryview, fields: tuple[int, ...], name: str, directory: int) -> Member:
    flags, method, crc, packed_bytes, num_bytes, offset = fields[3], fields[4], *fields[7:10], fields[16]
    if flags & _IS_ENCRYPTED:
        raise _damaged(f"{shown(name)} is encrypted")
    if flags & ~(_SIZES_FOLLOW | _IS_UTF8 | 0x6) or method not in (_STORED, _DEFLATED):
        raise _damaged(f"{shown(name)} is packed in an unusual way")
    if method == _STORED and packed_bytes != num_bytes:
        raise _damaged(f"{shown(name)} says two sizes")
    if method == _DEFLATED and num_bytes > MAX_PACKED_BYTES:
        raise _damaged(f"{shown(name)} would unpack to {num_bytes:,} bytes; at most {MAX_PACKED_BYTES >> 20} MiB")
    if offset + _LOCAL.size > directory:
        raise _damaged(f"{shown(name)} lies outside of the archive")
    local = _LOCAL.unpack_from(data, offset)
    begin = offset + _LOCAL.size
    sizes = (local[7], local[8])
    if (
        local[0] != b"PK\x03\x04"
        or local[2] != flags
        or local[3] != method
        or bytes(data[begin : begin + local[9]]) != name.encode()
        or not (sizes == (packed_bytes, num_bytes) or (flags & _SIZES_FOLLOW and sizes == (0, 0)))
    ):
        raise _damaged(f"{shown(name)} is described in two ways")
    begin += local[9] + local[10]
    if begin + packed_bytes > directory:
        raise _damaged(f"{shown(name)} is cut off")
    return Member(name, begin, packed_bytes, num_bytes, method == _DEFLATED, crc)


def _name(raw: bytes, flags: int) -> str:
    try:
        name = raw.decode("utf-8" if flags & _IS_UTF8 else "ascii")
    except UnicodeDecodeError:
        raise _damaged("a name that is not UTF-8") from None
    parts = name.split("/")
    if not name or name.endswith("/") or "\\" in name or not name.isprintable() or len(raw) > 1000:
        raise _damaged(f'a member with the name "{shown(name)}"')
    if any(part in ("", ".", "..") for part in parts):
        raise _damaged(f'a member with the name "{shown(name)}", which could lead outside of its folder')
    return name


def _check_order(found: list[tuple[int, Member]], directory: int) -> None:
    """Members follow each other: no bytes belong to two of them, and there is no room to hide others."""
    at = 0
    for offset, member in found:
        if not at <= offset <= at + _MAX_GAP_BYTES:
            where = "overlaps with another member" if offset < at else "comes after bytes that belong to nothing"
            raise _damaged(f"{shown(member.name)} {where}")
        at = member.offset + member.packed_bytes
    if not at <= directory <= at + _MAX_GAP_BYTES:
        raise _damaged("bytes that belong to nothing lie before its directory")


def _check_folders(members: dict[str, Member]) -> None:
    for name in members:
        parts = name.split("/")
        for length in range(1, len(parts)):
            if "/".join(parts[:length]) in members:
                raise _damaged(f"{shown(name)} lies below a file")
