"""One socket to a worker, and what its answers mean to the owner."""

from collections.abc import Callable

from serai.ipc.frames import WIDE, FrameError, FrameProtocol, pack_prefix
from serai_gpu_pool.core import LoadFailure, Outcome
from serai_gpu_pool.device import messages
from serai_gpu_pool.device.base import WorkerEvents
from serai_gpu_pool.device.messages import Answer, Done, Improved, Left, Loaded, LoadFailed, WorkerReady
from serai_gpu_pool.scheduling.copies import Residence, WorkerId

#: Frames up to this size are joined and written at once.
_JOIN_BYTES = 256 * 1024


class WorkerLink(FrameProtocol):
    prefix = WIDE

    def __init__(self, answered: Callable[[bytes, bytes], None], kill: Callable[[str], None]) -> None:
        super().__init__(messages.MAX_LINK_BYTES)
        self.frame_received = answered  # pyright: ignore[reportAttributeAccessIssue]  # saves a call a frame
        self._kill = kill

    def frame_error(self, error: FrameError) -> None:
        self._kill(f"it sent what is no frame: {error}")

    def send_parts(self, header: bytes, parts: list[bytes | memoryview]) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        num_bytes = sum([len(part) for part in parts])
        prefix = pack_prefix(header, num_bytes, WIDE) + header
        if num_bytes < _JOIN_BYTES and len(parts) > 1:
            self.transport.write(b"".join([prefix, *parts]))
        else:
            self.transport.writelines([prefix, *parts])


def report(events: WorkerEvents, id: WorkerId, answer: Answer, payload: bytes) -> None:
    """Tell the owner what a worker said."""
    if isinstance(answer, Done):
        events.on_batch_done(id, answer.batch, _results(answer, payload), answer.duration_s, answer.peak_bytes)
    elif isinstance(answer, Loaded):
        bytes_of = (answer.num_bytes, answer.kept_bytes, answer.can_page, answer.can_improve)
        events.on_loaded(id, answer.model, Residence(*bytes_of), answer.load_s)
    elif isinstance(answer, LoadFailed):
        events.on_load_failed(id, answer.model, LoadFailure(answer.kind, answer.message))
    elif isinstance(answer, Left):
        events.on_left(id, answer.model, answer.kept_bytes, answer.process_bytes)
    elif isinstance(answer, Improved):
        better = Residence(answer.num_bytes, answer.kept_bytes, answer.can_page, False) if answer.num_bytes else None
        events.on_improved(id, answer.model, better)
    elif isinstance(answer, WorkerReady):
        events.on_worker_ready(id, answer.base_bytes if id.owner else 0, answer.process_bytes)


def _results(done: Done, payload: bytes) -> list[tuple[Outcome, bytes | memoryview]]:
    results: list[tuple[Outcome, bytes | memoryview]] = []
    at = 0
    for outcome in done.outcomes:
        results.append((outcome, payload[at : at + outcome.num_bytes]))
        at += outcome.num_bytes
    return results
