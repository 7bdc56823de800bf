"""P1: a change to a Python algorithm whose requirements stay the same: from `git push` to the first answer of a call.

Beside it, in the same rounds: `git push` of the same commit into a bare repository over the file system, which is git
alone, and over HTTP through nothing but git's own http-backend. The parts are read off the lines that the push prints
as they come; taking out the files and compiling them is done once more by itself. Target: under 2 s.
"""

import contextlib
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from benchmarks.table import Rounds, print_table
from serai_gateway.build.bytecode import compile_python
from serai_gateway.build.checkout import export_commit
from serai_gateway.build.testing import write_wheel
from serai_gateway.build.tree import remove_tree
from serai_gateway.catalogue import open_catalogue
from serai_gateway.git import Repository
from serai_gateway.testing import Service, commit_all, run_git, write_algorithm

_NAME = "operator/p1"
_SOURCE = "import greet\n\ndef apply(input):\n    return {text!r}\n"
_NUM_FILES = 50
#: A line of the push that ends a part, and what the part is called.
_PARTS = {
    "remote: building ": "git, its checks, checkout",
    "remote: tried ": "compile, trial",
    "remote: built ": "catalogue",
}
_END = "branch moves, git ends"
_TARGET_S = 2.0


def run(*, rounds: int, seconds: float) -> None:
    found = Rounds()
    with tempfile.TemporaryDirectory() as place, _index(Path(place) / "index"):
        folder = _algorithm(Path(place) / "p1")
        remotes = {"file system": str(_bare(Path(place) / "alone.git"))}
        served = _bare(Path(place) / "served" / "p1.git")
        with Service(Path(place) / "home") as service, _http_backend(served.parent) as address:
            remotes["http-backend"] = f"{address}/p1.git"
            catalogue = open_catalogue(service.home)
            for number in range(rounds * max(2, int(seconds)) + 1):
                commit = _change(folder, number)
                times = {name: _push(folder, remote)["all"] for name, remote in remotes.items()}
                parts = _push(folder, service.remote(_NAME))
                began = time.perf_counter()
                assert service.call(_NAME, b'"x"').json()["result"] == str(number), "the call runs what was pushed"
                parts["first call"] = time.perf_counter() - began
                parts["all"] += parts["first call"]
                algorithm = catalogue.find_algorithm("operator", "p1", catalogue.account_named("operator"))
                parts |= _alone(Repository(service.home, algorithm.id), commit, Path(place) / "copy")
                if number:  # the first one makes repository and environment
                    for name, took in (*times.items(), *parts.items()):
                        found.add(name, "ms", took * 1e3)
            catalogue.close()
    _report(found, rounds * max(2, int(seconds)))


def _report(found: Rounds, num_pushes: int) -> None:
    print(f"\nP1 a change to a Python algorithm, {_NUM_FILES} files, one package: medians of {num_pushes} pushes")
    names = (
        "all",
        *_PARTS.values(),
        _END,
        "first call",
        "checkout alone",
        "compile alone",
        "file system",
        "http-backend",
    )
    shown = {
        "all": "push to first answer",
        "file system": "git push, file system",
        "http-backend": "git push, plain HTTP",
    }
    rows = [[shown.get(name, name), f"{found.median(name, 'ms'):.0f}", found.spread(name, "ms")] for name in names]
    print_table(["part", "ms", "spread"], rows)
    total = found.median("all", "ms")
    ratios = [f"{total / found.median(name, 'ms'):.1f} times {shown[name]}" for name in ("file system", "http-backend")]
    print(f"{' and '.join(ratios)}; target: under {_TARGET_S * 1e3:,.0f} ms")


def _algorithm(folder: Path) -> Path:
    write_algorithm(folder, "", extra='[sample]\ninput = "x"\n')
    (folder / "requirements.txt").write_text("greet\n")
    for number in range(_NUM_FILES - 4):
        (folder / "src" / f"part{number}.py").write_text(f"def part():\n    return {number}\n" * 20)
    return folder


def _change(folder: Path, number: int) -> str:
    (folder / "src/p1.py").write_text(_SOURCE.format(text=str(number)))
    return commit_all(folder)


def _push(folder: Path, remote: str) -> dict[str, float]:
    """Seconds until each part has ended, by name, and of all."""
    parts: dict[str, float] = {}
    command = ["git", "push", remote, "HEAD:main"]
    began = before = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as pushing:
        assert pushing.stderr is not None, "asked for a pipe"
        said = []
        for line in pushing.stderr:
            said.append(line)
            for start, name in _PARTS.items():
                if line.startswith(start):
                    now = time.perf_counter()
                    parts[name], before = now - before, now
    assert pushing.returncode == 0, "".join(said)
    now = time.perf_counter()
    return {**parts, _END: now - before, "all": now - began} if parts else {"all": now - began}


def _alone(repository: Repository, commit: str, place: Path) -> dict[str, float]:
    """What checkout and compilation take by themselves."""
    began = time.perf_counter()
    export_commit(repository, commit, place)
    exported = time.perf_counter()
    compile_python(place, "p1", "")
    compiled = time.perf_counter()
    remove_tree(place)
    return {"checkout alone": exported - began, "compile alone": compiled - exported}


def _bare(path: Path) -> Path:
    path.mkdir(parents=True)
    for words in (["init", "--bare", "--quiet"], ["config", "http.receivepack", "true"]):
        assert run_git(path, *words).returncode == 0
    return path


@contextlib.contextmanager
def _index(folder: Path) -> Iterator[None]:
    """Installers find one package, and nothing else."""
    write_wheel(folder, "greet", "1.0", {"greet.py": b"x = 1\n"})
    os.environ |= {"UV_FIND_LINKS": str(folder), "UV_OFFLINE": "1", "UV_CACHE_DIR": f"{folder}-cache"}
    try:
        yield
    finally:
        for name in ("UV_FIND_LINKS", "UV_OFFLINE", "UV_CACHE_DIR"):
            del os.environ[name]


@contextlib.contextmanager
def _http_backend(root: Path) -> Iterator[str]:
    """The address of a server that does nothing but start git's http-backend."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            length = int(self.headers.get("Content-Length") or 0)
            variables = {
                **{name: os.environ[name] for name in ("PATH",)},
                "GIT_PROJECT_ROOT": str(root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": str(length),
                "REMOTE_USER": "bench",
            }
            body = self.rfile.read(length)
            done = subprocess.run(["git", "http-backend"], input=body, env=variables, capture_output=True, check=False)
            head, _, content = done.stdout.partition(b"\r\n\r\n")
            self.wfile.write(b"HTTP/1.1 200 OK\r\n%s\r\nContent-Length: %d\r\n\r\n" % (head, len(content)) + content)

        do_POST = do_GET

        def log_message(self, format: str, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()
