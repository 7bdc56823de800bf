"""Run the models of an algorithm's manifest, from inside the algorithm.

    import serai

    _model = serai.model("mobilenet")          # the name from algorithm.toml; none: the only one

    def apply(input):
        return _model.run1(array)

The model itself lives in the pool, outside of the sandbox; arrays travel there and back. Arrays are NumPy's, or
anything with a buffer (`array.array`, `memoryview`) where NumPy is not installed. Thread-safe.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

from serai._wire import FAILURE, RAN, REFUSAL, RUN, SHARE, SHARED, FrameReader, WireError, send_frame

__all__ = ["Model", "ModelError", "model"]

#: Where a replica finds the pool.
_SOCKET = "/run/serai/pool/pool.sock"
#: Seconds to wait for a pool that is being restarted.
_RECONNECT_S = 5.0
#: Longest one run may wait and work, in seconds.
_DEFAULT_TIMEOUT_S = 30.0
#: From this size on, inputs go through shared memory: below it, one more copy through a socket costs less.
_SHARED_FROM_BYTES = 128 * 1024
#: Idle connections that are kept; more are only open while as many threads run models at once.
_MAX_IDLE = 8

#: Element types: NumPy's name to the format letters of the `struct` module that mean it on this machine.
_FORMATS = {
    "float16": "e", "float32": "f", "float64": "d", "bool": "?", "int8": "b", "uint8": "B", "int16": "h",
    "uint16": "H", "int32": "i", "uint32": "I", "int64": "ql", "uint64": "QL",
}  # fmt: skip
_NAMES = {letter: name for name, letters in _FORMATS.items() for letter in letters}


class ModelError(Exception):
    """A model could not be run, or failed.

    Attributes:
        error_type: "InputError" when what was passed does not fit the model, else "AlgorithmError" or another.
        retriable: The same call may well succeed in a moment.
    """

    def __init__(self, message: str, error_type: str = "AlgorithmError", retriable: bool = False) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.retriable = retriable


class Model:
    """One model of this algorithm's manifest. Connects on first use, so it may be made at import."""

    def __init__(self, name: str | None = None, timeout_s: float = _DEFAULT_TIMEOUT_S) -> None:
        self.name = name or ""
        self.timeout_s = timeout_s

    def __repr__(self) -> str:
        return f"serai.model({self.name!r})" if self.name else "serai.model()"

    def run(self, inputs: Any, outputs: Iterable[str] | None = None) -> dict[str, Any]:
        """Run the model.

        Args:
            inputs: Arrays by input name; the array alone where the model has one input.
            outputs: Names of the outputs that are wanted; all of them if left out.

        Returns:
            Arrays by output name.

        Raises:
            ModelError: the inputs do not fit the model, it failed, or the pool could not run it.
        """
        if not isinstance(inputs, dict):
            inputs = {"": inputs}
        tensors, buffers = [], []
        for name, value in inputs.items():
            dtype, shape, data = _to_buffer(value)
            tensors.append((str(name), dtype, shape))
            buffers.append(data)
        wanted = [str(name) for name in outputs or ()]
        return _connections.run(self.name, tensors, buffers, wanted, self.timeout_s)

    def run1(self, array: Any) -> Any:
        """Run a model with one input and one output: an array in, an array out."""
        results = self.run({"": array})
        if len(results) != 1:
            raise ModelError(f"the model has {len(results)} outputs ({', '.join(results)}); use run()")
        return next(iter(results.values()))


def model(name: str | None = None) -> Model:
    """A model of this algorithm's manifest, by its name there. Without a name: the only one it has."""
    return Model(name)


class _Connection:
    def __init__(self, path: str) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._sock.connect(path)
        except OSError:
            self._sock.close()
            raise
        self.path = path
        self._reader = FrameReader(self._sock)
        self._last = 0
        self._shared: mmap.mmap | None = None
        self._shares = sys.platform == "linux"  # until the pool says that it has none to give

    def close(self) -> None:
        self._sock.close()

    def __del__(self) -> None:
        self._sock.close()

    def _write_shared(self, buffers: list[Any], num_bytes: int) -> bool:
        """Put large inputs where the pool reads them without a socket between. False: they travel as a frame."""
        if num_bytes < _SHARED_FROM_BYTES or not self._shares:
            return False
        if self._shared is None or len(self._shared) < num_bytes:
            self._shared = self._share(num_bytes + num_bytes // 2)
            if self._shared is None:
                self._shares = False
                return False
        at = 0
        for buffer in buffers:
            self._shared[at : at + len(buffer)] = buffer
            at += len(buffer)
        return True

    def _share(self, num_bytes: int) -> mmap.mmap | None:
        self._last += 1
        send_frame(self._sock, [SHARE, self._last, num_bytes])
        answer = self._reader.read_with_descriptor()
        if answer is None:
            raise ConnectionError("the pool has closed the connection")
        header, _, descriptor = answer
        if descriptor is None:
            return None
        try:
            if header[0] != SHARED or os.fstat(descriptor).st_size < num_bytes:
                return None
            return mmap.mmap(descriptor, os.fstat(descriptor).st_size)
        finally:
            os.close(descriptor)

    def run(
        self, name: str, tensors: list[Any], buffers: list[Any], outputs: list[str], timeout_s: float
    ) -> tuple[list[Any], bytes | memoryview]:
        # The pool answers in time by itself; this is for one that has stopped without closing.
        self._sock.settimeout(timeout_s + _RECONNECT_S)
        num_bytes = sum(len(buffer) for buffer in buffers)
        is_shared = self._write_shared(buffers, num_bytes)
        self._last += 1
        header = [RUN, self._last, name, tensors, outputs, float(timeout_s), num_bytes if is_shared else 0]
        send_frame(self._sock, header, *([] if is_shared else buffers))
        while True:
            answer = self._reader.read()
            if answer is None:
                raise ConnectionError("the pool has closed the connection")
            header, payload = answer
            if isinstance(header, list) and len(header) > 2 and header[1] == self._last:
                return header, self._results_of(header, payload)

    def _results_of(self, header: list[Any], payload: bytes) -> bytes | memoryview:
        """The payload, or what the pool has put into shared memory instead. Valid until the next run."""
        if header[0] != RAN or len(header) < 5 or not header[4]:
            return payload
        if self._shared is None or not 0 < header[4] <= len(self._shared):
            raise WireError("an answer in memory that is not shared")
        return memoryview(self._shared)[: header[4]]


class _Connections:
    """Idle connections to the pool: each run takes one for itself, so threads do not wait for each other."""

    def __init__(self) -> None:
        self._idle: list[_Connection] = []
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def run(self, name: str, tensors: list[Any], buffers: list[Any], outputs: list[str], timeout_s: float) -> Any:
        """A run changes nothing, so it is sent again once when the pool went away with it."""
        for attempt in (1, 2):
            try:
                with self._borrow(fresh=attempt > 1) as connection:
                    header, payload = connection.run(name, tensors, buffers, outputs, timeout_s)
                    return _results(header, payload)
            except TimeoutError:
                raise ModelError(f"the model did not answer within {timeout_s:g} s", retriable=True) from None
            except WireError as error:
                raise ModelError(f"the pool sent what is no answer: {error}") from error
            except OSError as error:
                if attempt > 1:
                    raise ModelError(f"the pool cannot be reached: {error}", retriable=True) from error
        raise AssertionError("unreachable")

    @contextlib.contextmanager
    def _borrow(self, fresh: bool) -> Iterator[_Connection]:
        connection = self._take(fresh)
        try:
            yield connection
        except ModelError:
            self._give_back(connection)  # it was answered: the connection is sound
            raise
        except BaseException:
            connection.close()  # an answer may still come on it
            raise
        self._give_back(connection)

    def _take(self, fresh: bool) -> _Connection:
        path = os.environ.get("SERAI_POOL_SOCKET") or _default_socket()
        with self._lock:
            if fresh or self._pid != os.getpid():  # after a fork they are the parent's
                for old in self._idle:
                    old.close()
                self._idle, self._pid = [], os.getpid()
            if self._idle and self._idle[-1].path == path:
                return self._idle.pop()
        return _connect(path)

    def _give_back(self, connection: _Connection) -> None:
        with self._lock:
            if len(self._idle) < _MAX_IDLE:
                self._idle.append(connection)
                return
        connection.close()


_connections = _Connections()


def _default_socket() -> str:
    if not os.path.isdir(os.path.dirname(_SOCKET)):
        raise ModelError(
            "models only run inside of Serai, in an algorithm that names them under [models] in algorithm.toml. "
            "To try yours, publish it with `serai publish --private` and call it; to try its code here, give it a "
            "stand-in with a run() of your own"
        )
    return _SOCKET


def _connect(path: str) -> _Connection:
    """Connect, waiting a little for a pool that is just being started again. Nothing tells us when: so we look."""
    give_up = time.monotonic() + _RECONNECT_S
    pause_s = 0.005
    while True:
        try:
            return _Connection(path)
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() + pause_s > give_up:
                raise ModelError(
                    f"no pool at {path}: this algorithm has no [models] in its manifest, or the pool is down",
                    retriable=True,
                ) from None
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 0.1)


def _to_buffer(value: Any) -> tuple[str, list[int], memoryview]:
    """Element type, shape and row-major little-endian bytes of one input."""
    numpy = sys.modules.get("numpy")
    if numpy is None and not _has_buffer(value):
        numpy = _numpy_or_none()
    if numpy is not None:
        try:
            array = numpy.asarray(memoryview(value) if isinstance(value, (bytes, bytearray)) else value)
        except ValueError:
            raise ModelError("an input is not a regular nested list of numbers", "InputError") from None
        array = numpy.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(array.shape)
        if array.dtype.name not in _FORMATS:
            raise ModelError(f"an input is of type {array.dtype.name}, which models do not take", "InputError")
        return array.dtype.name, list(array.shape), memoryview(array.reshape(-1).view(numpy.uint8))
    if not _has_buffer(value):
        raise ModelError(f"an input is a {type(value).__name__}: pass an array", "InputError")
    view = memoryview(value)
    dtype = _NAMES.get(view.format.lstrip("@=<"))
    if dtype is None:
        raise ModelError(f"an input has elements of format {view.format}, which models do not take", "InputError")
    return dtype, list(view.shape or ()), memoryview(view.tobytes())


def _has_buffer(value: Any) -> bool:
    try:
        memoryview(value)
    except TypeError:
        return False
    return True


def _numpy_or_none() -> Any:
    try:
        import numpy
    except ImportError:
        return None
    return numpy


def _results(header: list[Any], payload: bytes | memoryview) -> dict[str, Any]:
    """Arrays by name from an answer; raises what a failure or refusal says."""
    tag = header[0]
    if tag == FAILURE:
        raise ModelError(str(header[3]), str(header[2]))
    if tag == REFUSAL:
        raise ModelError(f"{header[3]} ({header[2]})", retriable=bool(header[4]))
    if tag != RAN:
        raise ModelError(f"the pool sent a message of kind {tag}")
    results: dict[str, Any] = {}
    at = 0
    for name, dtype, shape in header[2]:
        num_bytes = math.prod(shape) * struct.calcsize(_FORMATS[dtype][0])
        results[name] = _from_buffer(memoryview(payload)[at : at + num_bytes], dtype, shape)
        at += num_bytes
    return results


def _from_buffer(data: memoryview, dtype: str, shape: list[int]) -> Any:
    """An array of our own to write to, or without NumPy a memoryview (of plain bytes where it knows no such cast)."""
    numpy = _numpy_or_none()
    if numpy is not None:
        return numpy.frombuffer(data, dtype).reshape(shape).copy()
    data = memoryview(bytes(data))  # shared memory is used again by the next run
    letter: Any = _FORMATS[dtype][0]
    if letter == "e":
        return data
    return data.cast(letter, shape) if shape and 0 not in shape else data.cast(letter)
