"""The pool as text: per device a bar of its memory, the models, the latest evictions. Pure; a dict in, lines out."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from serai.cli._pool_bar import MAX_CELLS, SMALL, Paint, assign_letters, draw_device
from serai.cli._pool_words import Fields, count, cut, duration, size, title
from serai.cli._terminal import printable

#: In the table, where there is no figure.
_NOTHING = "-"

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
    cells = MAX_CELLS if width is None else min(width - 2, MAX_CELLS)
    letters = assign_letters(pool, cells)
    paint = Paint(colour, letters)
    lines: list[str] = []
    for device in pool["devices"]:
        lines += [*draw_device(device, pool, letters, paint, width, cells), ""]
    host = pool["host"]
    waiting = f"{count(pool['queued_calls'], 'call waits', 'calls wait')} ({size(pool['queued_bytes'])})"
    lines += [cut(f"host tier: {size(host['used_bytes'])} of {size(host['budget_bytes'])}; {waiting}", width), ""]
    lines += [*_draw_models(pool["models"], letters, paint, width, show_all), ""]
    lines += _draw_evictions(pool, width)
    return "\n".join(lines).rstrip()


def _draw_models(
    models: list[Fields], letters: dict[tuple[str, str], str], paint: Paint, width: int | None, show_all: bool
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
        letter = letters.get((model["device"], model["key"]), SMALL if model["num_bytes"] else " ")
        mark = paint.cells(letter, 1) if letter != " " else letter
        cells = "".join(f"  {column.text(model):>{w}}" for column, w in zip(columns, widths, strict=True))
        yield f"{mark} {cut(title(model), name_width):<{name_width}}{cells}".rstrip()
        if model["verdict"]:
            yield cut(f"    not run: {' '.join(printable(model['verdict']).split())}", width)
    if len(shown) < len(models):
        yield cut(f"  and {len(models) - len(shown)} more, in no device's memory: --all", width)
    if any(column.text(model) == _NOTHING for model in shown for column in columns):
        yield cut(f"  {_NOTHING} in no device's memory, or not called yet", width)


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
    return f"{min(model['stats']['hits'] / calls, 1):.0%}" if calls else _NOTHING


def _batch(model: Fields) -> str:
    batches = model["stats"]["batches"]
    number = sum(batch["count"] for batch in batches)
    return f"{sum(batch['size'] * batch['count'] for batch in batches) / number:.1f}" if number else _NOTHING


def _last_used(model: Fields) -> str:
    seconds = model["stats"]["last_used_s_ago"]
    return "never" if seconds is None else duration(seconds)


def _by_last_use(model: Fields) -> tuple[bool, float, str]:
    seconds = model["stats"]["last_used_s_ago"]
    return seconds is None, seconds or 0.0, title(model)


_COLUMNS = (
    _Column("STATE", _state, 1),
    _Column("MEMORY", lambda model: size(model["num_bytes"]) if model["num_bytes"] else _NOTHING, 0),
    _Column("QUEUE", lambda model: str(model["queued"]), 2),
    _Column("LOADS", lambda model: str(model["loads"]), 4),
    _Column("HITS", _hits, 5),
    _Column("BATCH", _batch, 6),
    _Column("USED", _last_used, 3),
)


def _draw_evictions(pool: Fields, width: int | None) -> Iterator[str]:
    if not pool["evictions"]:
        return
    yield cut(f"latest evictions, by {printable(pool['policy'])}:", width)
    for one in pool["evictions"]:
        reason = " ".join(printable(one["reason"]).split())
        name = title(one)
        after = f"after {duration(one['age_s'])}"
        yield cut(f"  {duration(one['s_ago']):>6} ago  {name} left {one['device']} {after}: {reason}", width)
