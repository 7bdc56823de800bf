"""Values of what an author wrote as `async def`. asyncio takes 30 ms to import, so it is only where it is needed."""

from __future__ import annotations

import threading
import types
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serai_runner.inside.inbox import Running

_own = threading.local()


def loop() -> Any:
    """This thread's event loop: the same for all its calls, so that clients kept between calls go on working."""
    made = getattr(_own, "loop", None)
    if made is None:
        import asyncio

        made = _own.loop = asyncio.new_event_loop()
    return made


def finish(result: Any, running: Running | None = None) -> Any:
    """The value of what an `async def` returned; anything else as it is. A cancelled call raises CancelledError."""
    if not isinstance(result, types.CoroutineType):
        return result
    own = loop()
    task = own.create_task(result)
    if running is not None:
        running.interrupt = lambda: own.call_soon_threadsafe(task.cancel)
        if running.is_cancelled:
            task.cancel()
    return own.run_until_complete(task)


def iterate(generator: Any) -> Iterator[Any]:
    """The items of an asynchronous generator."""
    own = loop()
    try:
        while True:
            try:
                yield own.run_until_complete(generator.__anext__())
            except StopAsyncIteration:
                return
    finally:
        own.run_until_complete(generator.aclose())
