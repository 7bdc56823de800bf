"""Checks model files for a process that no file may hold up, fill or bring down.

    python -m serai_gpu_pool.formats.inspector PARENT

Standard input is a socket: a request is one byte with the descriptor of a file, the answer a line of JSON (`Report`).
It ends with its parent, or when the socket does.
"""

import math
import os
import resource
import socket
import sys

import msgspec

from serai.ipc.messages import ModelFormat, TensorSpec
from serai_gpu_pool.device.process_control import contain, die_with
from serai_gpu_pool.formats.base import ModelFileError, Tensor
from serai_gpu_pool.formats.onnx_file import read_onnx
from serai_gpu_pool.formats.sniff import map_model, read_program, sniff

#: Time for one file: ten times what the largest real graphs take.
MAX_SECONDS = 30
#: Memory for one file besides its own pages: four times what reading the largest tables takes.
MAX_MEMORY_BYTES = 2 << 30


class Report(msgspec.Struct, frozen=True):
    """What is known of a file. `refused`: why it may not be run, for its author; empty when it may."""

    format: ModelFormat | None = None  # None: no model
    refused: str = ""
    inputs: tuple[Tensor, ...] = ()  # none where the format does not say
    outputs: tuple[Tensor, ...] = ()
    num_nodes: int = 0


def inspect(descriptor: int) -> Report:
    """Check one file."""
    format: ModelFormat | None = None
    try:
        data = map_model(descriptor)
        format = sniff(data)
        if format == "onnx":
            onnx = read_onnx(data)
            return Report(format, "", onnx.inputs, onnx.outputs, onnx.num_nodes)
        found = read_program(data, format)
        return Report(format, "", _tensors(found.inputs), _tensors(found.outputs), found.num_nodes)
    except ModelFileError as error:
        return Report(format, str(error))
    except MemoryError:
        return Report(format, f"checking it takes more than {MAX_MEMORY_BYTES >> 30} GiB of memory: simplify its graph")


def _tensors(found: tuple[TensorSpec, ...] | None) -> tuple[Tensor, ...]:
    return tuple(Tensor(one.name, one.dtype, _shape(one.shape)) for one in found or ())


def _shape(shape: tuple[int, ...] | None) -> tuple[int | str, ...] | None:
    return None if shape is None else tuple(size if size >= 0 else "" for size in shape)


def main(parent_pid: int) -> None:
    die_with(parent_pid)
    contain(0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    with socket.socket(fileno=0) as channel:
        while True:
            _, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
            if not descriptors:
                return
            _limit(os.fstat(descriptors[0]).st_size)
            report = inspect(descriptors[0])
            os.close(descriptors[0])
            channel.sendall(msgspec.json.encode(report) + b"\n")


def _limit(file_bytes: int) -> None:
    """What the next file may take. The parent counts time as well; this holds where it cannot."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = math.ceil(used.ru_utime + used.ru_stime) + MAX_SECONDS
    for kind, most in ((resource.RLIMIT_AS, MAX_MEMORY_BYTES + file_bytes), (resource.RLIMIT_CPU, seconds)):
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


if __name__ == "__main__":
    main(int(sys.argv[1]))
