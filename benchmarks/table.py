"""Medians over rounds, and the table that is printed."""

import statistics
from collections import defaultdict
from collections.abc import Callable


class Rounds:
    """Values by row and column, one a round."""

    def __init__(self) -> None:
        self._values: defaultdict[tuple[str, str], list[float]] = defaultdict(list)

    def add(self, row: str, column: str, value: float) -> None:
        self._values[row, column].append(value)

    def median(self, row: str, column: str) -> float:
        return statistics.median(self._values[row, column])

    def last(self, row: str, column: str) -> float:
        return self._values[row, column][-1]

    def spread(self, row: str, column: str) -> str:
        values = self._values[row, column]
        return f"{min(values):,.2f}..{max(values):,.2f}"


def print_table(head: list[str], rows: list[list[str]], write: Callable[[str], object] = print) -> None:
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]
    for row in [head, ["-" * width for width in widths], *rows]:
        write("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
