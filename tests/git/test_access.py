"""Who may fetch and push: a table, in which what is private looks like what does not exist."""

import asyncio
import base64
from types import SimpleNamespace

import pytest

from serai_gateway.api.git.access import Asked, caller_of, find_target, parse
from serai_gateway.catalogue import Permissions, ensure_operator, open_catalogue
from serai_gateway.errors import Forbidden, NotFound, PlatformError, Unauthenticated

FETCH, PUSH = "git-upload-pack", "git-receive-pack"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Callers by what they are to the organization `org`, with and without the right to manage; its algorithms."""
    home = tmp_path_factory.mktemp("access")
    catalogue = open_catalogue(home)
    operator = ensure_operator(home, catalogue).account
    people = {name: catalogue.ensure_account(name) for name in ("owner", "member", "stranger")}
    org = catalogue.ensure_account("org", "organization", people["owner"])
    catalogue.set_member(org, people["member"], "member")
    callers = {("nobody", True): None, ("nobody", False): None}
    for name, account in (*people.items(), ("operator", operator)):
        for manage in (True, False):
            key = catalogue.create_key(account, "test", Permissions(manage=manage))
            callers[name, manage] = catalogue.caller_of_key(key.text)
    for name, settings, visibility in (
        ("private", {}, "private"), ("closed", {}, "public"), ("open", {"source_visibility": "open"}, "public"),
        ("secret", {"source_visibility": "open"}, "private"),
    ):  # fmt: skip
        algorithm = catalogue.ensure_algorithm(org, name, visibility)
        catalogue.set_algorithm(algorithm, settings=settings)
    yield catalogue, callers
    catalogue.close()


def outcome(world, who, manage, name, service):
    catalogue, callers = world
    try:
        target = find_target(catalogue, callers[who, manage], Asked("org", name, service, True))
    except PlatformError as error:
        return type(error), error.message.replace(name, "NAME")
    return target.algorithm.name if target.algorithm else "new"


@pytest.mark.parametrize("manage", [True, False])
@pytest.mark.parametrize("who", ["operator", "owner", "member"])
def test_those_who_belong_to_it_fetch_all_of_it_and_push_with_a_key_that_may(world, who, manage):
    for name in ("private", "closed", "open", "secret"):
        assert outcome(world, who, manage, name, FETCH) == name
        pushes = outcome(world, who, manage, name, PUSH)
        assert pushes == name if manage else pushes[0] is Forbidden
    assert outcome(world, who, manage, "unknown", FETCH)[0] is NotFound
    pushes = outcome(world, who, manage, "unknown", PUSH)
    assert pushes == "new" if manage else pushes[0] is Forbidden


@pytest.mark.parametrize("manage", [True, False])
def test_strangers_fetch_what_is_open_and_cannot_tell_private_from_unknown(world, manage):
    def of(name, service):
        return outcome(world, "stranger", manage, name, service)

    assert of("open", FETCH) == "open"
    assert (
        of("closed", FETCH)[0] is Forbidden and of("closed", PUSH)[0] is Forbidden and of("open", PUSH)[0] is Forbidden
    )
    for service in (FETCH, PUSH):
        assert of("private", service) == of("secret", service) == of("unknown", service)
        assert of("private", service)[0] is NotFound


def test_nobody_in_particular_fetches_what_is_open_and_is_asked_for_a_key_for_all_else(world):
    def of(name, service):
        return outcome(world, "nobody", True, name, service)

    assert of("open", FETCH) == "open"
    said = {of(name, FETCH) for name in ("private", "secret", "closed", "unknown")}
    said |= {of(name, PUSH) for name in ("private", "secret", "closed", "unknown", "open")}
    assert len(said) == 1 and said.pop()[0] is Unauthenticated


def test_owners_that_do_not_exist_look_like_those_who_do(world):
    catalogue, callers = world
    for who, error in (
        (("nobody", True), Unauthenticated),
        (("stranger", True), NotFound),
        (("operator", True), NotFound),
    ):
        for service in (FETCH, PUSH):
            with pytest.raises(error) as there:
                find_target(catalogue, callers[who], Asked("nowhere", "private", service, True))
            assert "nowhere" not in there.value.message or "no repository nowhere/private.git" in there.value.message


@pytest.mark.parametrize(
    ("path", "query", "method", "asked"),
    [
        ("/git/a/b.git/info/refs", b"service=git-upload-pack", "GET", Asked("a", "b", FETCH, True)),
        ("/git/a/b.git/info/refs", b"service=git-receive-pack", "GET", Asked("a", "b", PUSH, True)),
        ("/git/a/b/info/refs", b"service=git-upload-pack", "GET", Asked("a", "b", FETCH, True)),
        ("/git/a/b.git/git-upload-pack", b"", "POST", Asked("a", "b", FETCH, False)),
        ("/git/A_1/b-2.git/git-receive-pack", b"", "POST", Asked("A_1", "b-2", PUSH, False)),
    ],
)
def test_what_the_smart_protocol_asks_for_is_understood(path, query, method, asked):
    assert parse(path, query, method) == asked


@pytest.mark.parametrize(
    ("path", "query", "method"),
    [
        ("/git/a/b.git/info/refs", b"", "GET"), ("/git/a/b.git/info/refs", b"service=git-upload-pack", "POST"),
        ("/git/a/b.git/info/refs", b"service=git-upload-pack&x", "GET"), ("/git/a/b.git/HEAD", b"", "GET"),
        ("/git/a/b.git/git-upload-pack", b"", "GET"), ("/git/a/b.git/git-upload-pack", b"x", "POST"),
        ("/git/a/b.git/objects/info/packs", b"", "GET"), ("/git/-a/b.git/git-upload-pack", b"", "POST"),
        ("/git/a/../b.git/git-upload-pack", b"", "POST"), ("/git/a//b.git/git-upload-pack", b"", "POST"),
        ("/git/a/b.git/git-upload-pack\n", b"", "POST"), ("/git/a/b.git/git-upload-pack\0", b"", "POST"),
        ("/git/a%2fb.git/git-upload-pack", b"", "POST"), ("/git/a/b.git.git/git-upload-pack", b"", "POST"),
        ("/x/git/a/b.git/git-upload-pack", b"", "POST"), ("/git/" + "a" * 65 + "/b/git-upload-pack", b"", "POST"),
    ],
)  # fmt: skip
def test_all_else_is_not_found(path, query, method):
    with pytest.raises(NotFound):
        parse(path, query, method)


def basic(text):
    return b"Basic " + base64.b64encode(text)


class Keys:
    """Knows one key, `key`."""

    async def caller_of_key(self, text):
        return SimpleNamespace(key=text) if text == "key" else None


def caller(*values):
    return asyncio.run(caller_of({"headers": [(b"authorization", value) for value in values]}, Keys()))


def test_the_password_is_the_key_and_the_name_is_anything():
    assert caller() is None
    for value in (basic(b"me:key"), basic(b":key"), basic("é:key".encode()), b"BASIC " + base64.b64encode(b"x:key")):
        assert caller(value).key == "key"


@pytest.mark.parametrize(
    "value",
    [b"", b"Basic", b"Basic x", b"Bearer key", b"Simple key", basic(b"key"), basic(b"me:wrong"), basic(b"me:\xff"),
     basic("me:é".encode()), basic(b"me:" + b"x" * 5000), basic(b"key:me"), basic(b"me: key"), basic(b"me:key:")],
)  # fmt: skip
def test_any_other_value_is_asked_for_again(value):
    with pytest.raises(Unauthenticated) as error:
        caller(value)
    assert dict(error.value.headers)[b"www-authenticate"].startswith(b"Basic ")
