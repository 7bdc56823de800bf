"""Has a model opened, checked, measured and rewritten in a box, and believes nothing of what comes out of it."""

import contextlib
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import msgspec

from serai.ipc.messages import ModelSpec
from serai_gpu_pool.device import sandbox
from serai_gpu_pool.frameworks import registry
from serai_gpu_pool.prepare import part
from serai_gpu_pool.prepare.folder import (
    GRAPH,
    FolderError,
    prepared_folder,
    read_plain,
    root,
    runtime_tag,
    verify,
)
from serai_gpu_pool.prepare.graph_check import WEIGHTS
from serai_gpu_pool.prepare.job import RESULT, Answer, Failed, Job
from serai_gpu_pool.profile import FILE_NAME, MAX_FILE_BYTES, Profile, ProfileError, decode, encode, read

#: Time for figures of batches, of all the time there is: an author waits for it.
_MEASURE_SHARE, _MAX_MEASURE_S = 0.25, 12.0
#: The same for a model whose runs do not end. One that takes longer than this for a call cannot be served anyway.
_GIVE_UP_SHARE, _MAX_GIVE_UP_S = 0.5, 45.0
#: Memory for opening and running a model, beyond what its file explains.
MEMORY_BYTES = 2 << 30
#: And times its file: the file itself, weights unpacked from it, rearranged, and mapped in both arrangements.
_FILE_FACTOR = 6
#: The fast form holds each weight twice; constants that were folded may make it larger than the file.
_WRITE_FACTOR, _WRITE_BYTES = 4, 64 << 20
#: Threads and processes in the box: enough for any library's pools, too few for a fork bomb.
_PROCESSES = 256 + 8 * (os.cpu_count() or 1)
_TMP_BYTES = 256 << 20
#: Where things are inside.
_MODEL, _FOLDER = "/model", "/out"
_MAX_COMPLAINT = 2_000

PrepareKind = Literal["broken", "damaged", "refused", "unavailable"]


class PrepareError(Exception):
    """A model cannot be prepared; the text is for its author.

    kind: "broken" (the file is at fault), "damaged" (the stored copy is), "refused" (it needs more than it may have),
    "unavailable" (this machine cannot do it: no sandbox, no framework; `missing` says which).
    """

    def __init__(self, kind: PrepareKind, message: str) -> None:
        super().__init__(message)
        self.kind: PrepareKind = kind


@dataclass(frozen=True)
class Prepared:
    """A model that has been opened and measured."""

    folder: Path  # for `ModelSpec.prepared`
    profile: Profile


def prepare(
    spec: ModelSpec,
    home: Path,
    *,
    threads: int,
    sandboxed: bool = True,
    timeout_s: float = 120.0,
    memory_bytes: int = MEMORY_BYTES,
    ahead: Path | None = None,
) -> Prepared:
    """Open a model in a box, measure it, and store what makes it open fast. Blocks; may be called by several at once.

    What was prepared before is not prepared again. Nothing is left behind by a failure.

    Args:
        home: the folder of this Serai; the result is below `home/prepared`.
        threads: that a run may use.
        sandboxed: False only where the operator said that no sandbox is needed.
        timeout_s: for all of it.
        memory_bytes: that opening and running may take, beyond some times the file's size.
        ahead: another folder like `home`, of the same machine and user, in which it may have been prepared before.

    Raises:
        PrepareError: with whose fault it is.
    """
    lacking = registry.missing(spec.format)
    if lacking:
        raise PrepareError("unavailable", lacking)
    tag = runtime_tag(spec.format)
    place = prepared_folder(home, spec, tag)
    profile = _usable(place, spec)
    if profile is None and ahead is not None:
        profile = _copy(prepared_folder(ahead, spec, tag), place, spec)
    if profile is not None:
        return Prepared(place, profile)
    if sandboxed and sandbox.probe():
        raise PrepareError("unavailable", f"models are opened in a sandbox, and there is none: {sandbox.probe()}")
    part.sweep(root(home))
    with part.new_part(root(home)) as folder:
        job = _job(spec, folder, tag, threads, timeout_s, memory_bytes, sandboxed)
        _run(job, folder, timeout_s, sandboxed)
        profile = _take(job, folder)
        while not part.complete(folder, place):
            known = _usable(place, spec)
            if known is not None:  # somebody else was faster
                return Prepared(place, known)
            part.discard(place)
    return Prepared(place, profile)


def _usable(place: Path, spec: ModelSpec) -> Profile | None:
    """The profile of a folder that is there and whole."""
    profile = read(place)
    if profile is None or profile.sha256 != spec.sha256:
        return None
    if profile.has_prepared_form:
        try:
            verify(place, spec.sha256)
        except FolderError:
            return None
    return profile


def _copy(source: Path, place: Path, spec: ModelSpec) -> Profile | None:
    """The profile of a copy, if there was something whole to copy."""
    if _usable(source, spec) is None:
        return None
    try:
        with part.new_part(place.parent) as folder:
            for name in (GRAPH, WEIGHTS, FILE_NAME):
                if (source / name).exists():
                    shutil.copyfile(source / name, folder / name)
            part.complete(folder, place)
    except OSError:
        return None
    return _usable(place, spec)


def _job(
    spec: ModelSpec, folder: Path, tag: str, threads: int, timeout_s: float, memory_bytes: int, sandboxed: bool
) -> Job:
    return Job(
        spec,
        registry.FRAMEWORK_OF[spec.format],
        tag,
        _MODEL if sandboxed else spec.path,
        _FOLDER if sandboxed else str(folder),
        threads,
        min(_MAX_MEASURE_S, _MEASURE_SHARE * timeout_s),
        min(_MAX_GIVE_UP_S, _GIVE_UP_SHARE * timeout_s),
        memory_bytes + _FILE_FACTOR * spec.num_bytes,
        _WRITE_FACTOR * spec.num_bytes + _WRITE_BYTES,
        math.ceil(timeout_s * (threads + 1)),
        _PROCESSES if sandboxed else 0,
        sandbox.PARENT_INSIDE if sandboxed else os.getpid(),
    )


def _run(job: Job, folder: Path, timeout_s: float, sandboxed: bool) -> None:
    """Let the box do its work. Raises PrepareError when it does not come to an end of its own."""
    # Each file is there before, and the folder is not visible inside: so the box can make no others, and fill no disk.
    files = [folder / name for name in (GRAPH, WEIGHTS, RESULT)]
    for file in files:
        file.touch(0o600)
    with tempfile.TemporaryFile() as complaints:
        process = _start(job, files, complaints, sandboxed)
        try:
            _send(process, job)
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            message = f'model "{job.spec.name}" was not open and measured after {timeout_s:g} s: simplify its graph'
            raise PrepareError("refused", message) from None
        finally:
            if process.poll() is None:
                sandbox.kill(process.pid)
                process.wait()
            if process.stdin:
                process.stdin.close()
        if process.returncode:
            complaints.seek(0)
            raise _crashed(job, process.returncode, complaints.read()[-_MAX_COMPLAINT:])


def _start(job: Job, files: list[Path], complaints: IO[bytes], sandboxed: bool) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-I", "-B", "-m", "serai_gpu_pool.prepare"]
    filter_fd = sandbox.open_filter() if sandboxed else None
    if sandboxed:
        command = sandbox.enclose(
            command,
            read_only=((Path(job.spec.path), _MODEL),),  # a mount: a descriptor could be opened for writing
            writable=tuple((file, f"{_FOLDER}/{file.name}") for file in files),
            tmp_bytes=_TMP_BYTES + 2 * job.spec.num_bytes,  # a SavedModel is unpacked there
            seccomp_fd=filter_fd,
            variables={"OMP_NUM_THREADS": str(job.threads)},
        )
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # open for as long as we live: the box watches it
            stdout=subprocess.DEVNULL,
            stderr=complaints,
            env={},
            cwd="/",
            pass_fds=() if filter_fd is None else (filter_fd,),
            start_new_session=True,
        )
    finally:
        if filter_fd is not None:
            os.close(filter_fd)


def _send(process: subprocess.Popen[bytes], job: Job) -> None:
    assert process.stdin, "it was asked for"
    with contextlib.suppress(BrokenPipeError):  # how it has ended tells more
        process.stdin.write(msgspec.json.encode(job) + b"\n")
        process.stdin.flush()


def _crashed(job: Job, code: int, complaints: bytes) -> PrepareError:
    number = -code if code < 0 else code - 128
    name = f'model "{job.spec.name}"'
    if number == signal.SIGXCPU or number == signal.SIGKILL:
        return PrepareError("refused", f"{name} was stopped while it was opened: it needs too much time or memory")
    if 0 < number < signal.NSIG:
        return PrepareError("broken", f"{name} crashes {job.framework} when it is opened ({_signal_name(number)})")
    said = complaints.decode("utf-8", "replace").strip().splitlines()
    return PrepareError("unavailable", f"{name} could not be prepared: {said[-1] if said else f'exit code {code}'}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _take(job: Job, folder: Path) -> Profile:
    """Check everything that the box has left, and keep what belongs there. Raises PrepareError."""
    name = f'model "{job.spec.name}"'
    try:
        size = (folder / RESULT).lstat().st_size
        raw = read_plain(folder / RESULT, min(size, MAX_FILE_BYTES))
        answer = msgspec.json.decode(raw, type=Answer)
        if isinstance(answer, Failed):
            raise _failed(answer, job)
        profile = decode(encode(answer.profile))
        if (profile.sha256, profile.runtime, profile.threads) != (job.spec.sha256, job.runtime, job.threads):
            raise ProfileError("it is another model's")
    except (FolderError, ProfileError, msgspec.DecodeError, RecursionError, OSError) as error:
        raise PrepareError("broken", f"{name} cannot be prepared: what came of it is no result ({error})") from None
    if not (profile.has_prepared_form and profile.weights_bytes):
        (folder / WEIGHTS).unlink()
    if not profile.has_prepared_form:
        (folder / GRAPH).unlink()
    (folder / RESULT).unlink()
    (folder / FILE_NAME).write_bytes(encode(profile))
    if profile.has_prepared_form:
        try:
            verify(folder, job.spec.sha256)
        except FolderError as error:
            raise PrepareError("broken", f"{name} cannot be prepared: {error}") from None
    return profile


def _failed(answer: Failed, job: Job) -> PrepareError:
    text = answer.message[:_MAX_COMPLAINT]
    if answer.kind == "memory":
        limit = job.memory_bytes >> 20
        return PrepareError("refused", f"{text}; opening and running it may take {limit} MiB")
    return PrepareError(answer.kind, text)
