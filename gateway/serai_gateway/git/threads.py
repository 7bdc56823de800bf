"""Threads for git alone: what one repository makes it do for minutes must not keep the look-ups of calls waiting."""

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")

#: Commands of git at once, of one process.
_MAX_THREADS = 8

_threads = ThreadPoolExecutor(_MAX_THREADS, "git")


async def in_git_thread(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """As `asyncio.to_thread`, in a thread for git."""
    return await asyncio.get_running_loop().run_in_executor(_threads, functools.partial(function, *args, **kwargs))
