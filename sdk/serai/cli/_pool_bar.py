"""The bar of one device of a pool: what fills its memory, to scale, and a legend. Pure."""

from collections.abc import Iterator

from serai.cli._pool_words import Fields, count, cut, size, title
from serai.cli._terminal import printable

#: One letter a model that fills a cell of its device's bar.
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
#: All other models of a device together, what its workers take without models, what is kept for loads and runs.
SMALL, _RUNTIMES, _RESERVED, _FREE = "+", "#", "/", "."

#: Black on six backgrounds that terminals agree on, one after the other.
_COLOURS = tuple(f"30;{code}" for code in (42, 46, 43, 45, 44, 41))
_DIM = "2"

#: A longer bar is no easier to read.
MAX_CELLS = 100


class Paint:
    """Colours where there are some."""

    def __init__(self, colour: bool, letters: dict[tuple[str, str], str]) -> None:
        used = [*letters.values()]
        self._codes = {letter: _COLOURS[at % len(_COLOURS)] for at, letter in enumerate(used)} if colour else {}
        self._colour = colour

    def cells(self, mark: str, length: int) -> str:
        code = self._codes.get(mark) or _DIM
        return f"\x1b[{code}m{mark * length}\x1b[0m" if self._colour and length else mark * length


def _here(pool: Fields, device: Fields) -> list[Fields]:
    """The models that have memory of this device, the largest first."""
    here = [model for model in pool["models"] if model["device"] == device["id"] and model["num_bytes"]]
    return sorted(here, key=lambda model: (-model["num_bytes"], title(model)))


def assign_letters(pool: Fields, cells: int) -> dict[tuple[str, str], str]:
    """(device, key) of each model that fills a cell of its device's bar to its letter, until there are no more."""
    large = [
        (device["id"], model["key"])
        for device in pool["devices"]
        for model in _here(pool, device)
        if model["num_bytes"] * cells >= _whole(device)
    ]
    return dict(zip(large, LETTERS, strict=False))


def _whole(device: Fields) -> int:
    """What the bar stands for: the budget, or more where more than that is taken."""
    return max(device["budget_bytes"], device["resident_bytes"] + device["reserved_bytes"])


def draw_device(
    device: Fields,
    pool: Fields,
    letters: dict[tuple[str, str], str],
    paint: Paint,
    width: int | None,
    cells: int,
) -> Iterator[str]:
    name = " ".join(printable(device["name"]).split())
    yield cut(f"{device['id']}  {name}" if name else device["id"], width)
    here = _here(pool, device)
    segments = _segments(here, device, letters)
    if cells > 0 and _whole(device) > 0:
        yield f"[{''.join(paint.cells(mark, length) for mark, length in _to_scale(segments, cells))}]"
    yield from _wrapped(_legend(segments, len(here), len(pool["devices"])), width)
    running = f"; {count(device['running'], 'batch', 'batches')} running" if device["running"] else ""
    yield cut(f"{size(device['resident_bytes'])} resident of {size(device['budget_bytes'])}{running}", width)
    workers = [
        f"{worker['name']} {size(worker['memory_bytes']) if worker['state'] == 'up' else worker['state']}"
        for worker in device["workers"]
    ]
    if workers:
        yield cut("worker processes: " + printable(", ".join(workers)), width)


def _segments(models: list[Fields], device: Fields, letters: dict[tuple[str, str], str]) -> list[tuple[str, int]]:
    """(mark, bytes) from left to right: models with letters, the others, runtimes, reserved, free."""
    marks = [letters.get((device["id"], model["key"]), SMALL) for model in models]
    sizes = [model["num_bytes"] for model in models]
    large = [(mark, num_bytes) for mark, num_bytes in zip(marks, sizes, strict=True) if mark != SMALL]
    small = sum(sizes) - sum(num_bytes for _, num_bytes in large)
    runtimes = max(0, device["resident_bytes"] - sum(sizes))
    free = max(0, device["free_bytes"])
    return [*large, (SMALL, small), (_RUNTIMES, runtimes), (_RESERVED, device["reserved_bytes"]), (_FREE, free)]


def _to_scale(segments: list[tuple[str, int]], cells: int) -> Iterator[tuple[str, int]]:
    """(mark, cells), exactly `cells` together. Where a segment ends is rounded, not how long it is; what would not be
    seen gets a cell of the longest."""
    total = sum(num_bytes for _, num_bytes in segments) or 1
    lengths: list[int] = []
    before = end = 0
    for _, num_bytes in segments:
        end += num_bytes
        at = (2 * end * cells + total) // (2 * total)
        lengths.append(at - before)
        before = at
    for at, (_, num_bytes) in enumerate(segments):
        longest = max(range(len(lengths)), key=lengths.__getitem__)
        if num_bytes and not lengths[at] and lengths[longest] > 1:
            lengths[longest] -= 1
            lengths[at] = 1
    return ((mark, length) for (mark, _), length in zip(segments, lengths, strict=True))


def _legend(segments: list[tuple[str, int]], num_models: int, num_devices: int) -> list[str]:
    """What the signs of a bar are, and how much each is."""
    letters = [(mark, num_bytes) for mark, num_bytes in segments if mark in LETTERS]
    said: list[str] = []
    if letters:
        first, last = letters[0][0], letters[-1][0]
        marks = first if first == last else f"{first}-{last}"
        said.append(f"{marks} {count(len(letters), 'model')} {size(sum(num_bytes for _, num_bytes in letters))}")
    words = {
        SMALL: count(num_models - len(letters), "small model"),
        # A model is told of one device: its copies on others are in no list.
        _RUNTIMES: "runtimes of workers" if num_devices == 1 else "runtimes of workers, second copies",
        _RESERVED: "reserved for loads and runs",
        _FREE: "free",
    }
    return said + [
        f"{mark} {words[mark]} {size(num_bytes)}" for mark, num_bytes in segments if mark in words and num_bytes
    ]


def _wrapped(parts: list[str], width: int | None) -> Iterator[str]:
    """The parts, as many on a line as there is room for."""
    line = ""
    for part in parts:
        if line and width is not None and len(line) + 3 + len(part) > width:
            yield cut(line, width)
            line = ""
        line = f"{line}   {part}" if line else part
    if line:
        yield cut(line, width)
