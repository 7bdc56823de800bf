"""What gateway and builder say to each other: headers of frames, msgpack arrays like those of `serai.ipc.messages`."""

from typing import Literal

import msgspec


class Push(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Build what is being pushed. The algorithm's turn is kept until Release, so that git can move the branch."""

    id: int  # chosen by the sender, unique on the connection
    algorithm_id: str
    account: str  # its name
    commit: str
    expected: str  # the branch's head as the push found it; empty: there was none
    quarantine: str  # folder below the repository's `objects` that holds what is pushed


class Publish(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Commit the folder in this archive, build it, and publish it. The builder removes `folder` when it is done."""

    id: int
    account: str  # its name
    folder: str  # ours, below HOME/tmp; holds `archive`, a .tar.gz
    public: bool


class Compile(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Build the head of the default branch."""

    id: int
    algorithm_id: str
    account: str  # its name


class Release(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """git has ended, so the next build of this algorithm may begin; one that still goes on is called off."""

    id: int


class FirstParty(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Publish what comes with Serai, as far as it has changed."""

    id: int


class Said(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """A line of a build's log, as it comes."""

    id: int
    text: str


class Made(msgspec.Struct, frozen=True, array_like=True):
    """The version that a build has led to."""

    owner: str
    name: str
    hash: str
    semver: str | None
    public: bool


class Ended(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """The last message about a request."""

    id: int
    outcome: Literal["built", "failed", "busy", "too_many", "internal"]
    message: str = ""  # why not
    build_id: str = ""
    made: Made | None = None
    failed: dict[str, str] = {}  # of FirstParty: "owner/name" to why


Message = Push | Publish | Compile | Release | FirstParty | Said | Ended

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Message).decode


def encode(message: Message) -> bytes:
    return _encode(message)


def decode(header: bytes) -> Message:
    """Raises msgspec.DecodeError (or its ValidationError) for anything that is no message of ours."""
    return _decode(header)
