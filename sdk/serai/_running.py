"""The call that runs in this thread, for what an author's code says about it. Standard library only."""

from __future__ import annotations

import threading
from time import monotonic
from typing import Any

_own = threading.local()


def enter(caller: Any) -> None:
    """`caller` has `report(fraction, text, now)`; None: nobody wants to know."""
    _own.caller = caller


def leave() -> None:
    _own.caller = None


def progress(fraction: float | None = None, text: str = "") -> None:
    """Tell the caller how far the work is. Anywhere else than in an algorithm that runs a call, nothing happens.

    Args:
        fraction: 0 to 1; None when it is not known.
        text: what is being done, one line.

    Raises:
        ValueError: the fraction is no number from 0 to 1.
    """
    if fraction is not None and not 0.0 <= fraction <= 1.0:
        raise ValueError(f"progress is a number from 0 to 1, not {fraction!r}")
    caller = getattr(_own, "caller", None)
    if caller is not None:
        caller.report(-1.0 if fraction is None else float(fraction), str(text), monotonic())
