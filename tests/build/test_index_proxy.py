"""What fetches packages reaches the package index and nothing else: our proxy, and the real npm behind it."""

import base64
import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from serai.box.cgroups import Cgroups
from serai_gateway.build import box, node_environment
from serai_gateway.build.errors import BuildError, FetchFailed
from serai_gateway.build.index_proxy import MAX_CONNECTIONS, SOCKET, Index, IndexProxy, places_of
from serai_gateway.build.node_environment import ensure_node_environment
from serai_gateway.build.npm_settings import index_of
from serai_gateway.build.testing import write_tree
from serai_runner.sandbox import choose_sandbox
from serai_runner.settings import Settings

GREET = {"index.js": "exports.greet = (name) => 'hello ' + name;"}


class Server:
    """An HTTP server that remembers what it was asked, and answers with `body` or moves the client on."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.body, self.location = b"from the index", ""
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                self.send_response(302 if server.location else 200)
                if server.location:
                    self.send_header("Location", server.location)
                self.send_header("Content-Length", str(len(server.body)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(server.body)

            def log_message(self, format: str, *args: object) -> None:
                """Tests look at `asked`."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._http.server_port
        self.address = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.close()


@pytest.fixture
def other() -> Iterator[Server]:
    """Somewhere else."""
    one = Server()
    yield one
    one.close()


def at(*servers: Server, **proxies: str) -> Index:
    return Index(frozenset(("127.0.0.1", one.port) for one in servers), proxies)


@pytest.fixture
def door(tmp_path):
    folder = tmp_path / ("long" * 30)  # than the name of a socket may be
    folder.mkdir()
    return folder


def connect(door) -> socket.socket:
    import os

    descriptor = os.open(door, os.O_DIRECTORY)
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(10)
    sock.connect(f"/proc/self/fd/{descriptor}/{SOCKET}")
    os.close(descriptor)
    return sock


def say(door, text: str) -> bytes:
    """The whole answer to these bytes."""
    with connect(door) as sock:
        answer = b""
        with contextlib.suppress(BrokenPipeError):  # it has answered, and hung up, before it was asked
            sock.sendall(text.encode())
        with contextlib.suppress(ConnectionResetError):
            while data := sock.recv(65536):
                answer += data
        return answer


def get(address: str, *more: str) -> str:
    return "\r\n".join([f"GET {address} HTTP/1.1", "Host: elsewhere", *more, "", ""])


def tunnel(place: str) -> str:
    return f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n"


def test_the_index_answers_and_hears_nothing_of_the_way(door, server):
    proxy = IndexProxy(at(server))
    with proxy.serve(door):
        asked = get(f"{server.address}/a/-/a-1.tgz?x=1", "Proxy-Authorization: Basic x", "Authorization: Bearer y")
        answer = say(door, asked)
        assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"from the index")
        with connect(door) as sock:
            sock.sendall(tunnel(f"127.0.0.1:{server.port}").encode())
            assert sock.recv(100).startswith(b"HTTP/1.1 200")
            sock.sendall(b"GET /inside HTTP/1.0\r\n\r\n")
            assert sock.makefile("rb").read().endswith(b"from the index")
    (path, headers), (inside, _) = server.asked
    assert (path, headers["host"], inside) == ("/a/-/a-1.tgz?x=1", f"127.0.0.1:{server.port}", "/inside")
    assert "proxy-authorization" not in headers and headers["authorization"] == "Bearer y"
    assert not proxy.refused and not proxy.problem and not proxy.is_away


@pytest.mark.parametrize(
    "request_of",
    [
        lambda other: get(f"{other.address}/evil.tgz"),
        lambda other: tunnel(f"127.0.0.1:{other.port}"),
        lambda other: tunnel("169.254.169.254:80"),
        lambda other: get("http://169.254.169.254/latest/meta-data/"),
        lambda other: tunnel("[::1]:443"),
        lambda other: tunnel(f"localhost:{other.port}"),
        lambda other: get(f"http://user@127.0.0.1:{other.port}/"),
        lambda other: get(f"http://127.0.0.1:1@127.0.0.1:{other.port}/"),
    ],
)
def test_all_else_is_refused_before_anything_is_sent_there(door, server, other, request_of):
    proxy = IndexProxy(at(server))
    with proxy.serve(door):
        assert say(door, request_of(other)).startswith(b"HTTP/1.1 403")
    assert len(proxy.refused) == 1 and not other.asked and not server.asked


@pytest.mark.parametrize(
    "text",
    [
        "POST http://127.0.0.1:{port}/ HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n",
        "GET ftp://127.0.0.1:{port}/ HTTP/1.1\r\n\r\n",
        "GET https://127.0.0.1:{port}/ HTTP/1.1\r\n\r\n",
        "nonsense\r\n\r\n",
        "CONNECT 127.0.0.1:99999 HTTP/1.1\r\n\r\n",
        "GET http://127.0.0.1:{port}/\x00 a b c HTTP/1.1\r\n\r\n",
        "X" * 200_000 + "\r\n\r\n",
    ],
)
def test_what_is_no_request_for_a_package_reaches_nobody(door, server, text):
    proxy = IndexProxy(at(server))
    with proxy.serve(door):
        with contextlib.suppress(OSError):
            answer = say(door, text.replace("{port}", str(server.port)))
            assert answer == b"" or answer.startswith(b"HTTP/1.1 405")
        assert say(door, get(server.address)).startswith(b"HTTP/1.1 200"), "and the next one is answered"
    assert len(server.asked) == 1


def test_a_second_request_on_a_connection_does_not_slip_through(door, server, other):
    with IndexProxy(at(server)).serve(door):
        say(door, get(server.address) + get(f"{other.address}/evil") + get(f"{server.address}/second"))
    assert [path for path, _ in server.asked] == ["/"] and not other.asked


def test_it_passes_so_many_bytes_and_no_more(door, server):
    server.body = bytes(1 << 20)
    proxy = IndexProxy(at(server), max_bytes=3 << 20)
    with proxy.serve(door):
        assert len(say(door, get(server.address))) > 1 << 20
        assert len(say(door, get(server.address))) > 1 << 20
        assert len(say(door, get(server.address))) < 1 << 20
        assert say(door, get(server.address)).startswith(b"HTTP/1.1 503")
    assert proxy.problem == "packages of more than 3 MiB"


def test_it_has_so_many_connections_at_once_and_ends_with_open_ones(door, server):
    with IndexProxy(at(server)).serve(door):
        open_ones = [connect(door) for _ in range(MAX_CONNECTIONS)]
        for one in open_ones:
            one.sendall(b"GET ")
        while not (answer := say(door, get(server.address))).startswith(b"HTTP/1.1 503"):
            assert answer.startswith(b"HTTP/1.1 200"), "those before it are still being taken"
        open_ones.pop().close()
        while not say(door, get(server.address)).startswith(b"HTTP/1.1 200"):
            pass
    for one in open_ones:
        assert one.recv(10) == b""
        one.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "index-proxy"]


def test_an_index_that_is_away_is_told_from_one_that_refuses(door):
    proxy = IndexProxy(Index(frozenset({("127.0.0.1", 1)})))
    with proxy.serve(door):
        assert say(door, get("http://127.0.0.1:1/")).startswith(b"HTTP/1.1 502")
    assert proxy.is_away and not proxy.refused


def test_it_goes_through_the_machines_own_proxy(tmp_path, door, server):
    upstream, above = IndexProxy(at(server)), tmp_path / "above"
    above.mkdir()
    with upstream.serve(above), forwarded(above) as (port, heard):
        address = f"http://us%65r:pass@127.0.0.1:{port}"
        with IndexProxy(at(server, http=address, https=address)).serve(door):
            assert say(door, get(f"{server.address}/a")).endswith(b"from the index")
            with connect(door) as sock:
                sock.sendall(tunnel(f"127.0.0.1:{server.port}").encode())
                assert sock.recv(100).startswith(b"HTTP/1.1 200")
                sock.sendall(b"GET /b HTTP/1.0\r\n\r\n")
                assert sock.makefile("rb").read().endswith(b"from the index")
        assert len(heard) == 2 and all(b"Basic " + base64.b64encode(b"user:pass") in one for one in heard)
        without = at(server, http=address, https=address, no="example.org,127.0.0.1")
        with IndexProxy(without).serve(door.parent):
            assert say(door.parent, get(f"{server.address}/c")).endswith(b"from the index")
        assert len(heard) == 2
    assert [path for path, _ in server.asked] == ["/a", "/b", "/c"]


@contextlib.contextmanager
def forwarded(folder) -> Iterator[tuple[int, list[bytes]]]:
    """A port that leads to the proxy in `folder`; the first bytes of each connection."""
    heard: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def take() -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                into = connect(folder)
                first = sock.recv(65536)
                heard.append(first)
                into.sendall(first)
                for pair in ((sock, into), (into, sock)):
                    threads.append(threading.Thread(target=pump, args=pair))
                    threads[-1].start()
                ends.extend((sock, into))

    ends: list[socket.socket] = []
    threads = [threading.Thread(target=take)]
    threads[0].start()
    try:
        yield listener.getsockname()[1], heard
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        threads[0].join()
        for one in ends:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        for one in ends:
            one.close()


def test_what_an_operator_has_configured_is_the_index():
    told = {
        "registry": "https://registry.example/npm/", "@acme:registry": "http://acme.example:4873/", "other": "https://x",
        "https-proxy": "http://proxy.example:3128", "noproxy": ["inside.example"],
    }  # fmt: skip
    config = "//tarballs.example/:_authToken=x\n//odd.example:8443/path/:_auth = y\nregistry=https://ignored.example\n"
    index = index_of(told, config, {"SERAI_PACKAGE_HOSTS": "cdn.example, mirror.example:8080"})
    assert index.places == {
        ("registry.example", 443), ("acme.example", 4873), ("tarballs.example", 80), ("tarballs.example", 443),
        ("odd.example", 8443), ("cdn.example", 80), ("cdn.example", 443), ("mirror.example", 8080),
    }  # fmt: skip
    assert index.proxy_for("https", "registry.example") == "http://proxy.example:3128"
    assert index.proxy_for("http", "registry.example") == index.proxy_for("https", "a.inside.example") == ""
    plain = index_of({"registry": "https://r.example"}, "", {"HTTPS_PROXY": "p:1", "no_proxy": "*"})
    assert plain.proxies["https"] == "p:1" and plain.proxy_for("https", "r.example") == ""


def test_addresses_that_are_none_name_no_place():
    assert places_of("") == places_of("https://") == places_of("http://a:b:c/") == places_of("http://a:99999/") == set()
    assert places_of("https://A.example./x") == {("a.example", 443)}


# With the real npm


@pytest.fixture(params=[pytest.param("bubblewrap", marks=pytest.mark.needs_bubblewrap),
                        pytest.param("docker", marks=pytest.mark.needs_docker)])  # fmt: skip
def boxed(request, tmp_path_factory, monkeypatch):
    cgroups = Cgroups.detect("serai-index-test")
    chosen = choose_sandbox(Settings(tmp_path_factory.mktemp("boxes"), sandbox=request.param), cgroups)
    monkeypatch.setattr(box, "_choose", lambda home: chosen)
    yield request.param
    cgroups.close()


@pytest.fixture
def install(boxed, home, tmp_path):
    def install(**dependencies):
        (home / "tmp").mkdir(exist_ok=True)
        folder = write_tree(tmp_path / "files", {"package.json": json.dumps({"dependencies": dependencies})})
        lines = []
        key = ensure_node_environment(folder, home, lines.append)
        assert key is not None
        return home / "environments" / key

    return install


#: npm 11 and newer refuse these by themselves; what an older one does, ours must stop.
OLD = ("--allow-git=all", "--allow-file=all", "--allow-directory=all")


@pytest.fixture
def credulous(monkeypatch):
    monkeypatch.setattr(node_environment, "_FETCH", (*node_environment._FETCH, *OLD))


def test_npm_installs_in_each_sandbox_with_no_way_but_the_proxy(install, npm_index):
    npm_index.add("greet", "1.0.0", GREET)
    assert (install(greet="1.0.0") / "node_modules/greet/index.js").is_file()
    assert npm_index.requests


@pytest.mark.parametrize("section", ["dependencies", "optionalDependencies"])
def test_an_address_that_a_package_names_is_refused_and_said(install, npm_index, other, section):
    npm_index.add("sly", "1.0.0", {}, **{section: {"evil": f"{other.address}/evil.tgz"}})
    with pytest.raises(BuildError, match=r"package\.json: a package comes from .*not the package index") as error:
        install(sly="1.0.0")
    assert f"{other.address}/evil.tgz" in str(error.value) and not other.asked


@pytest.mark.usefixtures("credulous")
def test_addresses_by_tls_and_by_git_are_refused_too(install, npm_index, other):
    for name, place in (("tls", f"https://127.0.0.1:{other.port}/evil.tgz"),
                        ("meta", "http://169.254.169.254/latest/evil.tgz")):  # fmt: skip
        npm_index.add(name, "1.0.0", {}, dependencies={"evil": place})
        with pytest.raises(BuildError, match=r"package\.json: a package comes from ") as error:
            install(**{name: "1.0.0"})
        assert place.removeprefix("https://").removesuffix("/evil.tgz") in str(error.value)
    npm_index.add("git", "1.0.0", {}, dependencies={"evil": f"git+http://127.0.0.1:{other.port}/evil.git"})
    with pytest.raises(BuildError, match=r"package\.json"):
        install(git="1.0.0")
    assert not other.asked


def test_an_address_of_the_index_itself_is_refused_too(install, npm_index):
    """It could be one that the index only passes on."""
    npm_index.add("greet", "1.0.0", GREET)
    address = f"{npm_index.address}/greet/-/greet-1.0.0.tgz"
    npm_index.add("sly", "1.0.0", {}, dependencies={"greet": address})
    with pytest.raises(BuildError, match=r"package\.json: greet, which node_modules/sly wants from") as error:
        install(sly="1.0.0")
    assert address in str(error.value)


def test_a_redirection_and_an_archive_elsewhere_are_refused(install, npm_index, other, monkeypatch):
    npm_index.add("moved", "1.0.0", {})
    npm_index._versions["moved"]["1.0.0"]["dist"]["tarball"] = f"{other.address}/moved.tgz"
    with pytest.raises(BuildError, match=rf"a package comes from http://127\.0\.0\.1:{other.port}/moved\.tgz"):
        install(moved="1.0.0")
    assert not other.asked
    server = Server()
    server.location = f"{other.address}/away"
    monkeypatch.setenv("npm_config_registry", server.address)
    try:
        with pytest.raises(BuildError, match=rf"a package comes from http://127\.0\.0\.1:{other.port}/away"):
            install(anything="1.0.0")
    finally:
        server.close()
    assert not other.asked


def test_a_host_that_the_operator_names_is_part_of_the_index(install, npm_index, other, monkeypatch):
    npm_index.add("moved", "1.0.0", GREET)
    other.body = next(iter(npm_index._archives.values()))
    npm_index._versions["moved"]["1.0.0"]["dist"]["tarball"] = f"{other.address}/moved.tgz"
    monkeypatch.setenv("SERAI_PACKAGE_HOSTS", f"127.0.0.1:{other.port}")
    assert (install(moved="1.0.0") / "node_modules/moved/index.js").is_file()
    assert [path for path, _ in other.asked] == ["/moved.tgz"]


def test_an_index_that_is_away_is_worth_another_try(install, npm_index, monkeypatch):
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:1")
    monkeypatch.setattr(node_environment, "_FETCH", (*node_environment._FETCH, "--fetch-retries=0"))
    with pytest.raises(FetchFailed, match="did not answer; try again later"):
        install(greet="1.0.0")
