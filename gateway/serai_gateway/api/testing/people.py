"""A gateway of its own with people in it, and what to ask it with."""

import contextlib
import http.client
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from serai_gateway.api.v2.testing.gateway import running_gateway
from serai_gateway.catalogue import Account, Permissions, ensure_operator, open_catalogue
from serai_gateway.server.testing import RunningServer, wait_until
from serai_gateway.testing import PATIENCE_S, Answer


class People:
    """A gateway that nothing stands behind, and everybody's key.

    olga owns `team`, mark is a member of it, and sam is a stranger. `team` is the organization's own key, `limited` one
    of olga's that may not manage.
    """

    def __init__(self, home: Path, server: RunningServer, keys: dict[str, str]) -> None:
        self._home = home
        self._server = server
        self._numbers = itertools.count()
        self.keys = keys

    def ask(self, method: str, path: str, body: object = None, key: str | None = "operator") -> Answer:
        """`body`: bytes as they are, anything else as JSON. `key`: whose, or its text; None: without."""
        sent = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers = {} if key is None else {"Authorization": f"Simple {self.keys.get(key, key)}"}
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=PATIENCE_S)
        try:
            connection.request(method, path, sent, headers)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def new_name(self) -> str:
        return f"new{next(self._numbers)}"

    def new_user(self) -> str:
        """The name of a user with a key; `keys` has it."""
        name = self.new_name()
        assert self.ask("POST", "/v1/users", {"username": name, "email": f"{name}@example.com"}).status == 200
        self.keys[name] = self.ask("POST", f"/v1/users/{name}/keys", {"key_label": "first"}).json()["api_key"]
        return name

    def new_organization(self, owner: str) -> str:
        body = organization(self.new_name())
        assert self.ask("POST", "/v1/organizations", body, owner).status == 200
        return body["org_name"]

    def add_algorithm(self, owner: str, name: str, *, is_public: bool = False) -> None:
        catalogue = open_catalogue(self._home)
        visibility = "public" if is_public else "private"
        catalogue.ensure_algorithm(catalogue.account_named(owner), name, visibility)
        catalogue.close()


def organization(name: str) -> dict[str, Any]:
    """The body that makes one."""
    return {
        "org_name": name,
        "org_label": "Some label",
        "org_contact_name": "Some owner",
        "org_email": f"{name}@example.com",
        "org_url": "https://example.com",
        "type_id": "basic",
        "resource_type": "organization",
    }


def code_of(answer: Answer) -> tuple[int, int]:
    """Status and number of a refusal, which has the documented form."""
    error = answer.json()["error"]
    assert {"id", "code", "message"} <= set(error) and error["message"], answer.body
    return answer.status, error["code"]


@contextlib.contextmanager
def running_people(folder: Path) -> Iterator[People]:
    home = folder / "home"
    catalogue = open_catalogue(home)
    keys = {"operator": ensure_operator(home, catalogue).key}

    def add(account: Account) -> Account:
        keys[account.name] = catalogue.create_key(account, "test").text
        return account

    olga, mark, _ = (
        add(catalogue.create_account(name, {"email": f"{name}@x.org"})) for name in ("olga", "mark", "sam")
    )
    team = add(catalogue.create_organization("team", olga, {}))
    catalogue.set_member(team, mark)
    keys["limited"] = catalogue.create_key(olga, "limited", Permissions(manage=False)).text
    catalogue.close()
    with running_gateway(home, "--log-level", "warning") as server:
        people = People(home, server, keys)
        wait_until(lambda: people.ask("GET", "/healthz").status == 200, "the gateway is up")
        yield people
