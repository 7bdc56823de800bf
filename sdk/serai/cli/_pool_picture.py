"""The pool as text: per device a bar of its memory, the models, the latest evictions. Pure; a dict in, lines out."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from serai.cli._terminal import printable

Fields = dict[str, Any]

#: One letter a model in the bars; what has none is too small to be seen anyway.
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SMALL, _RESERVED, _FREE = "+", "/", "."

#: Black on six backgrounds that terminals agree on, one after the other.
_COLOURS = tuple(f"30;{code}" for code in (42, 46, 43, 45, 44, 41))
_DIM = "2"

#: A longer bar is no easier to read.
_MAX_BAR = 100
#: Models in no device's memory that are shown unless all are asked for; a pool may know thousands.
MAX_OTHERS = 20
#: Names are cut to no less.
_MIN_NAME = 12


class _Column(NamedTuple):
    title: str
    text: Callable[[Fields], str]
    rank: int  # on a narrow terminal the highest goes first


def draw(pool: Fields, width: int | None, *, colour: bool = False, show_all: bool = False) -> str:
    """What `GET /v1/pool` answered, at most `width` columns wide (None: as wide as it gets).

    Raises KeyError, TypeError or ValueError for what is no such answer.
    """
    letters = _letters(pool)
    paint = _Paint(colour, letters)
    lines: list[str] = []
    for device in pool["devices"]:
        lines += [*_draw_device(device, pool, letters, paint, width), ""]
    host = pool["host"]
    waiting = f"{pool['queued_calls']} calls wait ({size(pool['queued_bytes'])})"
    lines += [_cut(f"host tier: {size(host['used_bytes'])} of {size(host['budget_bytes'])}; {waiting}", width), ""]
    lines += [*_draw_models(pool["models"], letters, paint, width, show_all), ""]
    lines += _draw_evictions(pool, width)
    return "\n".join(lines).rstrip()


def size(num_bytes: float) -> str:
    """In the units of `--cpu-budget`: `49 MiB`, `1.2 GiB`."""
    units = ["TiB", "GiB", "MiB", "KiB", "B"]
    while num_bytes >= 1023.5 and len(units) > 1:
        num_bytes /= 1024
        units.pop()
    return f"{num_bytes:.1f} {units[-1]}" if num_bytes < 9.95 and units[-1] != "B" else f"{num_bytes:.0f} {units[-1]}"


def duration(seconds: float) -> str:
    for limit, unit, divisor in ((99.5, "s", 1), (5970, "min", 60), (358_200, "h", 3600)):
        if seconds < limit:
            return f"{seconds / divisor:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def title(model: Fields) -> str:
    """As `serai pool pin` takes it: OWNER/NAME, and the model's own name where it has another."""
    algorithm, name = model["algorithm"], model["name"]
    return " ".join(printable(algorithm if algorithm.endswith(f"/{name}") else f"{algorithm}/{name}").split())


class _Paint:
    """Colours where there are some."""

    def __init__(self, colour: bool, letters: dict[tuple[str, str], str]) -> None:
        used = [*letters.values()]
        self._codes = {letter: _COLOURS[at % len(_COLOURS)] for at, letter in enumerate(used)} if colour else {}
        self._colour = colour

    def cells(self, mark: str, count: int) -> str:
        code = self._codes.get(mark) or _DIM
        return f"\x1b[{code}m{mark * count}\x1b[0m" if self._colour and count else mark * count


def _letters(pool: Fields) -> dict[tuple[str, str], str]:
    """(device, key) of what is in memory to its letter, the largest first."""
    resident = [model for model in pool["models"] if model["num_bytes"] and model["device"]]
    resident.sort(key=lambda model: (model["device"], -model["num_bytes"], title(model)))
    return {(model["device"], model["key"]): letter for model, letter in zip(resident, _LETTERS, strict=False)}


def _draw_device(
    device: Fields, pool: Fields, letters: dict[tuple[str, str], str], paint: _Paint, width: int | None
) -> Iterator[str]:
    budget, free, reserved = device["budget_bytes"], device["free_bytes"], device["reserved_bytes"]
    name = " ".join(printable(device["name"]).split())
    yield _cut(f"{device['id']}  {name}" if name else device["id"], width)
    here = [model for model in pool["models"] if model["device"] == device["id"] and model["num_bytes"]]
    cells = _MAX_BAR if width is None else min(width - 2, _MAX_BAR)
    if cells > 0 and budget > 0:
        segments = _segments(here, device, letters, cells)
        yield f"[{''.join(paint.cells(mark, count) for mark, count in _to_scale(segments, cells))}]"
    running = f"; {device['running']} running" if device["running"] else ""
    yield _cut(
        f"{size(device['resident_bytes'])} resident, {size(reserved)} reserved, {size(free)} free "
        f"of {size(budget)}{running}",
        width,
    )
    workers = [
        f"{worker['name']} {size(worker['memory_bytes']) if worker['state'] == 'up' else worker['state']}"
        for worker in device["workers"]
    ]
    if workers:
        yield _cut("workers: " + printable(", ".join(workers)), width)


def _segments(
    models: list[Fields], device: Fields, letters: dict[tuple[str, str], str], cells: int
) -> list[tuple[str, int]]:
    """(mark, bytes) from left to right: models, those too small for a cell together, reserved, free."""
    cell_bytes = device["budget_bytes"] / cells
    segments: list[tuple[str, int]] = []
    small = 0
    for model in sorted(models, key=lambda model: -model["num_bytes"]):
        letter = letters.get((device["id"], model["key"]))
        if letter is None or model["num_bytes"] < cell_bytes / 2:
            small += model["num_bytes"]
        else:
            segments.append((letter, model["num_bytes"]))
    shown = max(small, round(cell_bytes)) if small else 0  # what is there is seen, however small
    free = max(0, device["free_bytes"] - (shown - small))
    return [*segments, (_SMALL, shown), (_RESERVED, device["reserved_bytes"]), (_FREE, free)]


def _to_scale(segments: list[tuple[str, int]], cells: int) -> Iterator[tuple[str, int]]:
    """(mark, cells): where a segment ends is rounded, not how long it is, so that the bar is exactly full."""
    total = sum(num_bytes for _, num_bytes in segments) or 1
    before = end = 0
    for mark, num_bytes in segments:
        end += num_bytes
        at = round(end * cells / total)
        yield mark, at - before
        before = at


def _draw_models(
    models: list[Fields], letters: dict[tuple[str, str], str], paint: _Paint, width: int | None, show_all: bool
) -> Iterator[str]:
    if not models:
        yield "no models yet: the first call of one brings it here"
        return
    resident = sorted((m for m in models if m["num_bytes"]), key=lambda m: (m["device"], -m["num_bytes"], title(m)))
    others = sorted((m for m in models if not m["num_bytes"]), key=_by_last_use)
    shown = resident + (others if show_all else others[:MAX_OTHERS])
    columns, name_width = _fitting(shown, width)
    widths = [max(len(column.title), *(len(column.text(model)) for model in shown)) for column in columns]
    titles = "".join(f"  {column.title:>{w}}" for column, w in zip(columns, widths, strict=True))
    yield f"  {'MODEL':<{name_width}}{titles}".rstrip()
    for model in shown:
        letter = letters.get((model["device"], model["key"]), " ")
        mark = paint.cells(letter, 1) if letter != " " else letter
        cells = "".join(f"  {column.text(model):>{w}}" for column, w in zip(columns, widths, strict=True))
        yield f"{mark} {_cut(title(model), name_width):<{name_width}}{cells}".rstrip()
        if model["verdict"]:
            yield _cut(f"    not run: {' '.join(printable(model['verdict']).split())}", width)
    if len(shown) < len(models):
        yield _cut(f"  and {len(models) - len(shown)} more that are not in memory; --all shows them", width)


def _fitting(models: list[Fields], width: int | None) -> tuple[list[_Column], int]:
    """The columns that there is room for, and the width of names."""
    name_width = max(len("MODEL"), *(len(title(model)) for model in models))
    columns = list(_COLUMNS)
    if width is None:
        return columns, name_width
    while True:
        taken = 2 + sum(2 + max(len(c.title), *(len(c.text(model)) for model in models)) for c in columns)
        room = width - taken
        if not columns or room >= min(name_width, _MIN_NAME + len(columns)):
            return columns, max(min(name_width, room), 1)
        columns.remove(max(columns, key=lambda column: column.rank))


def _state(model: Fields) -> str:
    if not model["pinned"]:
        return model["state"]
    return "pinned" if model["state"] == "resident" else f"{model['state']}, pinned"


def _hits(model: Fields) -> str:
    """How many of its calls found it in memory."""
    calls = model["stats"]["succeeded"] + model["stats"]["failed"]
    return f"{min(model['stats']['hits'] / calls, 1):.0%}" if calls else "-"


def _batch(model: Fields) -> str:
    batches = model["stats"]["batches"]
    count = sum(batch["count"] for batch in batches)
    return f"{sum(batch['size'] * batch['count'] for batch in batches) / count:.1f}" if count else "-"


def _last_used(model: Fields) -> str:
    seconds = model["stats"]["last_used_s_ago"]
    return "never" if seconds is None else duration(seconds)


def _by_last_use(model: Fields) -> tuple[bool, float, str]:
    seconds = model["stats"]["last_used_s_ago"]
    return seconds is None, seconds or 0.0, title(model)


_COLUMNS = (
    _Column("STATE", _state, 1),
    _Column("MEMORY", lambda model: size(model["num_bytes"]) if model["num_bytes"] else "-", 0),
    _Column("QUEUE", lambda model: str(model["queued"]), 2),
    _Column("LOADS", lambda model: str(model["loads"]), 4),
    _Column("HITS", _hits, 5),
    _Column("BATCH", _batch, 6),
    _Column("USED", _last_used, 3),
)


def _draw_evictions(pool: Fields, width: int | None) -> Iterator[str]:
    if not pool["evictions"]:
        return
    yield _cut(f"latest evictions, by {printable(pool['policy'])}:", width)
    for one in pool["evictions"]:
        reason = " ".join(printable(one["reason"]).split())
        name = title(one)
        after = f"after {duration(one['age_s'])}"
        yield _cut(f"  {duration(one['s_ago']):>6} ago  {name} left {one['device']} {after}: {reason}", width)


def _cut(text: str, width: int | None) -> str:
    return text if width is None or len(text) <= width else text[: max(width - 1, 0)] + "…"
