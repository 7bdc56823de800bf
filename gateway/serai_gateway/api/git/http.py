"""/git/OWNER/NAME.git, in raw ASGI: hands requests to git, which runs in a box, and holds a push until it is built."""

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import Iterator

from starlette.responses import PlainTextResponse, Response

from serai_gateway.api.call_request import find_header
from serai_gateway.api.calls import Receive, Scope, Send
from serai_gateway.api.git.access import Asked, Target, caller_of, find_target, parse
from serai_gateway.api.git.backend import Backend, start_backend
from serai_gateway.api.git.hook import INSIDE, Hook, remove_abandoned
from serai_gateway.api.git.push import Push
from serai_gateway.builder.client import BuilderClient
from serai_gateway.caches import CatalogueCache
from serai_gateway.catalogue import Algorithm, Catalogue
from serai_gateway.errors import Internal, PlatformError, TooManyRequests, Unavailable, error_headers
from serai_gateway.git import NO_REPOSITORY, GitError, Repository
from serai_gateway.git.box import has_box, problem
from serai_gateway.git.limits import LIMITS
from serai_gateway.git.threads import in_git_thread
from serai_gateway.logs import get_logger
from serai_gateway.request_id import new_request_id
from serai_gateway.settings import Settings

_log = get_logger("gateway")

#: Around a pack, the names of branches.
_PUSH_BODY_BYTES = LIMITS.push_bytes + (16 << 20)
#: Of one worker: fetches and pushes of an account (of everybody without one) at once.
_MAX_AT_ONCE = 8

_PROTOCOL = re.compile(rb"version=[012]\Z")
_LENGTH = re.compile(rb"[0-9]{1,12}\Z")


def body_limit(path: bytes) -> int:
    """How large a body this path may have beyond the usual; 0: no more than usual."""
    return _PUSH_BODY_BYTES if path.startswith(b"/git/") and path.endswith(b"/git-receive-pack") else 0


class GitHttp:
    def __init__(self, settings: Settings, catalogue: Catalogue, cache: CatalogueCache, builder: BuilderClient) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._cache = cache
        self._builder = builder
        self._at_once: Counter[str] = Counter()
        remove_abandoned(settings.run_dir)

    def serves(self, path: str) -> bool:
        return path.startswith("/git/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What goes wrong is said as plain text, which git shows to its user."""
        try:
            # As it was sent: no name of ours needs an escape, so what has one is something else.
            asked = parse(scope["raw_path"].decode("latin-1"), scope["query_string"], scope["method"])
            if why := problem():
                raise Unavailable(f"this server has no repositories: {why}")
            caller = await caller_of(scope, self._cache)
            target = await asyncio.to_thread(find_target, self._catalogue, caller, asked)
            with self._counted(target):
                await self._exchange(scope, receive, send, asked, target)
        except PlatformError as error:
            await _refusal(error)(scope, receive, send)
        except GitError as error:
            await PlainTextResponse(f"{error}\n", 422)(scope, receive, send)
        except ConnectionResetError:
            pass  # nobody is left to answer
        except TimeoutError:  # the server cuts the connection
            _log.warning("git took too long", action="git", path=scope["path"])

    @contextlib.contextmanager
    def _counted(self, target: Target) -> Iterator[None]:
        """Raises TooManyRequests."""
        who = target.account.id if target.account else ""
        if self._at_once[who] >= _MAX_AT_ONCE:
            raise TooManyRequests(f"{_MAX_AT_ONCE} of your fetches and pushes are under way", retry_after_s=5)
        self._at_once[who] += 1
        try:
            yield
        finally:
            self._at_once[who] -= 1
            if not self._at_once[who]:
                del self._at_once[who]

    async def _exchange(self, scope: Scope, receive: Receive, send: Send, asked: Asked, target: Target) -> None:
        pushes = asked.service == "git-receive-pack" and not asked.is_discovery
        algorithm = target.algorithm
        if pushes and algorithm is None:
            algorithm = await asyncio.to_thread(self._catalogue.ensure_algorithm, target.owner, asked.name)
        repository = Repository(self._settings.home, algorithm.id if algorithm else NO_REPOSITORY)
        await in_git_thread(repository.ensure)
        variables = _variables(scope, asked, repository, target)
        async with asyncio.timeout(LIMITS.push_s if pushes else LIMITS.fetch_s):
            if pushes and algorithm is not None:
                await self._push(receive, send, repository, algorithm, target, variables)
            else:
                async with start_backend(self._settings.home, repository.path, variables) as backend:
                    await _relay(backend, receive, send)

    async def _push(
        self,
        receive: Receive,
        send: Send,
        repository: Repository,
        algorithm: Algorithm,
        target: Target,
        variables: dict[str, str],
    ) -> None:
        assert target.account is not None, "nobody pushes without an account"
        home = self._settings.home
        hook = Hook(self._settings.run_dir)
        place = INSIDE if has_box(home) else str(hook.folder)
        variables |= {"SERAI_PUSH": place}
        push = Push(repository, algorithm, target.account, self._builder, hook)
        talking = asyncio.create_task(push.run())
        try:
            async with start_backend(
                home, repository.path, variables,
                settings={"core.hooksPath": place}, writable=True, read_only=((hook.folder, INSIDE),),
            ) as backend:  # fmt: skip
                try:
                    await _relay(backend, receive, send, is_push=True)
                finally:
                    if not push.has_answered:  # git ended without asking, or its client has gone
                        talking.cancel()
                        await asyncio.wait((talking,))
                        hook.give_up()  # before git is ended: so it tidies up
        finally:
            hook.close()
            push.git_has_ended()
            if not push.has_answered:
                talking.cancel()
            await asyncio.wait((talking,))
            self._cache.forget()
        with contextlib.suppress(GitError):  # it is a favour
            await in_git_thread(repository.tidy)


async def _relay(backend: Backend, receive: Receive, send: Send, *, is_push: bool = False) -> None:
    """Body in, answer out, until git has said all. Raises ConnectionError when the client goes before that."""
    feeding = asyncio.create_task(_feed(backend, receive))
    answering = asyncio.create_task(_answer(backend, send, is_push))
    try:
        await asyncio.wait((feeding, answering), return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise ConnectionResetError("the client has gone")
        await answering
    finally:
        for task in (feeding, answering):
            task.cancel()
        await asyncio.gather(feeding, answering, return_exceptions=True)


async def _feed(backend: Backend, receive: Receive) -> None:
    """Returns when the client has gone."""
    has_ended = False
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        await backend.write(message.get("body", b""))
        if not has_ended and not message.get("more_body", False):
            has_ended = True
            backend.end_input()


async def _answer(backend: Backend, send: Send, is_push: bool) -> None:
    try:
        head = await backend.read_head()
    except asyncio.IncompleteReadError:
        raise Internal("git ended without an answer; try again") from None
    headers = [(name.encode(), value.encode("latin-1")) for name, value in head.headers.items()]
    await send({"type": "http.response.start", "status": head.status, "headers": headers})
    while piece := await backend.read():
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    if await backend.wait() != 0 and is_push:
        # A client would wait for the rest of an answer that looks complete; one that is cut it takes for an error.
        raise ConnectionResetError("git ended before its answer did")
    await send({"type": "http.response.body", "body": b""})


def _variables(scope: Scope, asked: Asked, repository: Repository, target: Target) -> dict[str, str]:
    """The request as a CGI program gets it (RFC 3875). Nothing of it is the client's own words but numbers."""
    headers = scope["headers"]
    what = "info/refs" if asked.is_discovery else asked.service
    variables = {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "REQUEST_METHOD": scope["method"],
        "QUERY_STRING": f"service={asked.service}" if asked.is_discovery else "",
        "GIT_PROJECT_ROOT": "{place}",
        "PATH_INFO": f"/{what}",
        "GIT_HTTP_EXPORT_ALL": "1",
        "REMOTE_USER": target.account.name if target.account else "",
        "REMOTE_ADDR": "127.0.0.1",
        "CONTENT_TYPE": "" if asked.is_discovery else f"application/x-{asked.service}-request",
    }
    length = find_header(headers, b"content-length")
    if length is not None and _LENGTH.match(length):
        variables["CONTENT_LENGTH"] = length.decode()
    if find_header(headers, b"content-encoding") in (b"gzip", b"x-gzip"):
        variables["HTTP_CONTENT_ENCODING"] = "gzip"
    protocol = find_header(headers, b"git-protocol")
    if protocol is not None and _PROTOCOL.match(protocol):
        variables["GIT_PROTOCOL"] = protocol.decode()
    return variables


def _refusal(error: PlatformError) -> Response:
    response = PlainTextResponse(f"{error.message}\n", error.status)
    known = {name for name, _ in response.raw_headers} | {name for name, _ in error.headers}
    response.raw_headers.extend(error.headers)
    response.raw_headers.extend(pair for pair in error_headers(error, new_request_id()) if pair[0] not in known)
    return response
