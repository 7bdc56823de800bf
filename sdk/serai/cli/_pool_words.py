"""Words and figures of `serai pool`: sizes, times, names. Pure."""

from typing import Any

from serai.cli._terminal import printable

Fields = dict[str, Any]


def size(num_bytes: float) -> str:
    """In the units of `--cpu-budget`: `49 MiB`, `1.2 GiB`."""
    units = ["TiB", "GiB", "MiB", "KiB", "B"]
    while num_bytes >= 1023.5 and len(units) > 1:
        num_bytes /= 1024
        units.pop()
    return f"{num_bytes:.1f} {units[-1]}" if num_bytes < 9.95 and units[-1] != "B" else f"{num_bytes:.0f} {units[-1]}"


def count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def duration(seconds: float) -> str:
    for limit, unit, divisor in ((99.5, "s", 1), (5970, "min", 60), (358_200, "h", 3600)):
        if seconds < limit:
            return f"{seconds / divisor:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def title(model: Fields) -> str:
    """As `serai pool pin` takes it: OWNER/NAME, and the model's own name where it has another."""
    algorithm, name = model["algorithm"], model["name"]
    return " ".join(printable(algorithm if algorithm.endswith(f"/{name}") else f"{algorithm}/{name}").split())


def cut(text: str, width: int | None) -> str:
    return text if width is None or len(text) <= width else text[: max(width - 1, 0)] + "…"
