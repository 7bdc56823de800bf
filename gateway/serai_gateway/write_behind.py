"""Records that calls leave behind, written together: a call waits for none of them, and a flood costs one transaction
a second.

What has not been written is lost when the worker is killed: a second's worth. When it stops, all of it is written.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from serai_gateway.logs import get_logger

#: From the first record to its writing.
WRITE_S = 1.0
#: Waiting records of one key, the newest; and of all together.
MAX_OF_KEY = 200
MAX_WAITING = 2000

_log = get_logger("gateway")
_T = TypeVar("_T")


class WriteBehind(Generic[_T]):
    """Owns what waits. All methods on the loop.

    Args:
        write: writes some records; blocks, and may raise, then they are tried again.
        what: what they are, for our log.
    """

    def __init__(self, write: Callable[[list[_T]], object], what: str) -> None:
        self._write = write
        self._what = what
        self._waiting: dict[str, deque[_T]] = {}
        self._num_waiting = 0
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None

    def add(self, key: str, record: _T) -> None:
        """Have it written soon. Beyond the limits the oldest of the same key makes room for it."""
        mine = self._waiting.get(key)
        if mine is None:
            if self._num_waiting >= MAX_WAITING:
                return
            mine = self._waiting[key] = deque()
        if len(mine) >= MAX_OF_KEY or self._num_waiting >= MAX_WAITING:
            mine.popleft()
            self._num_waiting -= 1
        mine.append(record)
        self._num_waiting += 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(WRITE_S, self._begin)

    async def close(self) -> None:
        """Write what there is."""
        if self._timer is not None:
            self._timer.cancel()
        if self._writing is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._writing
        await self._write_all()

    def _begin(self) -> None:
        self._writing = asyncio.get_running_loop().create_task(self._go())

    async def _go(self) -> None:
        await self._write_all()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(WRITE_S, self._begin) if self._waiting else None

    async def _write_all(self) -> None:
        waiting, self._waiting, self._num_waiting = self._waiting, {}, 0
        records = [record for mine in waiting.values() for record in mine]
        if not records:
            return
        try:
            await asyncio.to_thread(self._write, records)
        except Exception:  # a busy database: the next try is in a second
            _log.exception(f"{self._what} could not be written", action="write_behind", num=len(records))
            for key, mine in waiting.items():
                newer = self._waiting.get(key, ())
                self._num_waiting += len(mine)
                self._waiting[key] = deque([*mine, *newer])
                while len(self._waiting[key]) > MAX_OF_KEY:
                    self._waiting[key].popleft()
                    self._num_waiting -= 1
