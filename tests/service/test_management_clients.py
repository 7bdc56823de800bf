"""Algorithmia's own clients, as they were published, manage algorithms here, from create to delete.

Every answer that they get is decoded as what the document says it is.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import requests

from serai_gateway.api.openapi.management import OPERATIONS
from serai_gateway.api.openapi.management_shapes import NoSuchAlgorithm, Refused
from serai_gateway.catalogue import open_catalogue
from serai_gateway.testing import PATIENCE_S, Service

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the packages predate this Python
    import Algorithmia
    import algorithmia_api_client as generated
    from Algorithmia.errors import AlgorithmException

pytestmark = pytest.mark.needs_bubblewrap

_DETAILS = {"summary": "Says hello", "label": "QA", "tagline": "Hello to whoever is named"}
_SETTINGS = {"source_visibility": "open", "license": "apl", "network_access": "isolated", "pipeline_enabled": False}
_BY_ID = re.compile(r"/v1/algorithms/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(?=/|$)")
_SINGULAR = re.compile(r"/version$")


class Author(NamedTuple):
    name: str
    key: str
    client: Any


def check_answer(method: str, address: str, status: int, body: bytes) -> None:
    """What a management request was answered is what the document says. Raises msgspec.ValidationError."""
    path = _SINGULAR.sub("/versions", _BY_ID.sub("/v1/algorithms/o/n", address.partition("?")[0]))
    if path.startswith("/v1/algo/"):
        return
    if status >= 400:
        wrong = msgspec.json.decode(body)["error"]
        assert wrong == "No such algorithm" or set(wrong) == {"message"} or msgspec.json.decode(body, type=Refused)
        assert isinstance(wrong, dict) or msgspec.json.decode(body, type=NoSuchAlgorithm)
        return
    (operation,) = [one for one in OPERATIONS if one.answers(method, path)]
    assert status == int(operation.status), (method, address, status)
    if operation.answer is None:
        assert body == b""
    elif operation.answer is not bytes:
        msgspec.json.decode(body, type=operation.answer)


def _checking(client: Any) -> Any:
    def check(response: requests.Response, *_: object, **__: object) -> None:
        check_answer(response.request.method or "", response.request.path_url, response.status_code, response.content)

    client.requestSession.hooks["response"].append(check)
    return client


@pytest.fixture(scope="module")
def author(service: Service) -> Author:
    """An account of its own, with a key that may manage."""
    catalogue = open_catalogue(Path(service.home))
    key = catalogue.create_key(catalogue.ensure_account("quality"), "test").text
    catalogue.close()
    return Author("quality", key, _checking(Algorithmia.client(key, service.address)))


@pytest.fixture(scope="module")
def operator(service: Service) -> Any:
    return _checking(Algorithmia.client(service.key, service.address))


@pytest.fixture
def environment(author: Author) -> str:
    """The id of an algorithm environment of Python, as a client finds it."""
    environments = author.client.get_environment("python3")["environments"]
    name = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    return next(one["id"] for one in environments if one["display_name"] == name)


@pytest.fixture
def hello(author: Author, environment: str, service: Service) -> Iterator[Any]:
    """A new algorithm, gone afterwards."""
    algorithm = author.client.algo(f"{author.name}/hello")
    created = algorithm.create(
        details=_DETAILS,
        settings=_SETTINGS | {"algorithm_environment": environment},
        version_info={"sample_input": "hello"},
    )
    assert created["name"] == "hello"
    yield algorithm
    if algorithm.exists():
        assert author.client.deleteHelper(f"/v1/algorithms/{author.name}/hello").reason == "No Content"


def test_the_python_client_takes_an_algorithm_from_its_template_to_a_version(author: Author, hello: Any) -> None:
    """As its own tests do."""
    assert hello.exists() and not author.client.algo(f"{author.name}/not_hello").exists()
    compiled = hello.compile()
    hash = compiled["version_info"]["git_hash"]
    assert (compiled["name"], compiled["details"]) == ("hello", _DETAILS)
    assert compiled["compilation"]["successful"] is True
    with_hash = author.client.algo(f"{author.name}/hello/{hash}")
    assert with_hash.pipe("John").result == "hello John"
    published = with_hash.publish(
        details={"label": "testing123"},
        settings={"algorithm_callability": "private"},
        version_info={"release_notes": "created programmatically", "sample_input": "John", "version_type": "minor"},
    )
    assert published["version_info"]["semantic_version"] == "0.1.0"
    assert hello.info(hash)["version_info"]["semantic_version"] == "0.1.0"
    assert hello.info()["results"][0]["resource_type"] == "algorithm"
    (version,) = hello.versions(published="true", limit=10)["results"]
    assert version["version_info"]["semantic_version"] == "0.1.0"
    assert author.client.algo(f"{author.name}/hello/0.1.0").pipe("Ann").result == "hello Ann"
    with pytest.raises(Exception, match="409"):
        hello.publish(version_info={"version_type": "revision"})


def test_the_python_client_reads_builds_and_their_logs(author: Author, hello: Any) -> None:
    hash = hello.compile()["version_info"]["git_hash"]
    builds = hello.get_builds()["results"]
    assert next(build["commit_sha"] for build in builds if build["status"] == "succeeded") == hash
    build = hello.get_build(builds[0]["build_id"])
    assert build == builds[0]
    logs = hello.get_build_logs(build["build_id"])["logs"]
    assert "Beginning container customization" in logs
    assert hello.get_scm_status() == {"scm_connection_status": "active"}
    page = hello.get_builds(limit=1)
    assert len(page["results"]) == 1
    with pytest.raises(AlgorithmException):
        hello.get_build(str(uuid.uuid4()))


def test_the_python_client_updates(author: Author, hello: Any) -> None:
    """It sends a form with the names of its arguments and without their values: nothing changes, and nothing fails."""
    updated = hello.update(details=_DETAILS, settings=_SETTINGS, version_info={"sample_input": "hello"})
    assert updated["id"] == hello.get_algorithm_id() and updated["details"]["label"] == "QA"
    answer = requests.put(
        f"{author.client.apiAddress}/v1/algorithms/{author.name}/hello",
        json={"details": {"label": "Other", "tagline": "changed"}},
        headers={"Authorization": author.key},
        timeout=PATIENCE_S,
    )
    check_answer("PUT", f"/v1/algorithms/{author.name}/hello", answer.status_code, answer.content)
    assert answer.json()["details"]["label"] == "Other"


def test_the_python_client_keeps_secrets(author: Author, hello: Any) -> None:
    kept = hello.set_secret("tst", "test_key", "test_value", "lorem ipsum")
    assert (kept["short_name"], kept["secret_key"]) == ("tst", "test_key")
    listed = hello.get_secrets()
    assert listed["secrets"] == listed["results"] == [kept]
    assert "test_value" not in json.dumps(listed)


def test_the_python_client_reads_what_went_wrong(author: Author, hello: Any, service: Service) -> None:
    assert author.client.get_algorithm_errors(hello.get_algorithm_id()) == []
    assert author.client.get_user_errors(author.name) == []
    assert author.client.get_organization_errors("a_myOrg1") == []
    with pytest.raises(AlgorithmException) as unknown:
        author.client.get_algorithm_errors("hello")
    assert unknown.value.message == "No such algorithm"
    with pytest.raises(Exception, match="401"):
        Algorithmia.client("simNobodyHasThisKey000000000", service.address).algo("demo/hello").pipe("world")


def test_the_python_client_lists_languages_environments_and_hosts_of_code(author: Author, tmp_path: Path) -> None:
    assert author.client.get_supported_languages()[0]["name"] == "anaconda3"
    specification = author.client.get_environment("python3")["environments"][0]["environment_specification_id"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it unpacks without a filter
        assert author.client.get_template(specification, str(tmp_path / "template")).ok
    assert (tmp_path / "template" / "src" / "__ALGO__.py").is_file()
    assert author.client.scms()["results"][0]["id"] == "internal"
    assert author.client.get_secret_providers()[0]["isDefault"] is True


def test_the_operator_makes_users_and_organizations_with_the_python_client(operator: Any) -> None:
    name = f"a_Mrtest{uuid.uuid4().hex[:6]}"
    made = operator.create_user(
        {"username": name, "email": f"{name}@algo.com", "passwordHash": "", "shouldCreateHello": False}
    )
    assert made["username"] == name
    assert {one["name"] for one in operator.get_org_types()} >= {"basic", "legacy", "pro"}
    org = f"a_myOrg{uuid.uuid4().hex[:6]}"
    about = {"org_name": org, "org_label": "some label", "org_contact_name": "Some owner", "type_id": "basic"}
    about |= {"org_email": f"{org}@algo.com", "org_url": "https://algorithmia.com", "resource_type": "organization"}
    assert operator.create_org(dict(about))["org_name"] == org
    assert operator.get_org(org)["org_name"] == org
    assert operator.edit_org(org, dict(about) | {"org_label": "another"}).status_code == 204
    assert operator.get_org(org)["org_label"] == "another"
    assert operator.invite_to_org(org, name).status_code == 200
    assert operator.get_organization_errors(org) == operator.get_user_errors(name) == []


def _page(ask: Callable[..., Any], *what: str, **options: Any) -> list[Any]:
    """The results of a list; the client has no class for what is in one, and fails at all lists but empty ones."""
    return json.loads(ask(*what, **options, _preload_content=False).data)["results"]


def test_the_generated_client_decodes_every_answer(author: Author, service: Service) -> None:
    """It refuses what lacks a field or has an unknown value."""
    api, name = author.client.manageApi, "generated"
    settings = generated.SettingsMandatory(**_SETTINGS, package_set="python36")
    request = generated.CreateRequest(name=name, details=generated.Details(label="G"), settings=settings)
    created = api.create_algorithm(author.name, request)
    assert created.name == name and created.id
    compiled = api.compile_algorithm(author.name, name)
    assert compiled.compilation.successful and compiled.build.status == "succeeded"
    assert api.compile_algorithm_by_id(created.id).version_info.git_hash == compiled.version_info.git_hash
    publish = generated.VersionRequest(
        details=generated.Details(label="G"),
        settings=generated.SettingsPublish(algorithm_callability="private"),
        version_info=generated.VersionInfoPublish(version_type="minor", release_notes="first"),
    )
    published = api.publish_algorithm(author.name, name, publish)
    assert published.version_info.semantic_version == "0.1.0"
    with pytest.raises(generated.ApiException) as twice:
        api.publish_algorithm_by_id(created.id, publish)
    assert twice.value.status == 409 and json.loads(twice.value.body)["error"]["code"] == 1007
    assert api.get_algorithm(author.name, name).version_info.semantic_version == "0.1.0"
    assert api.get_algorithm_by_id(created.id).name == name
    (version,) = _page(api.get_algorithm_versions, author.name, name, published=True, callable=True)
    found = api.get_algorithm_hash_version(author.name, name, version["version_info"]["git_hash"])
    assert found.version_info.release_notes == "first"
    builds = _page(api.get_algorithm_builds, author.name, name, limit=5)
    assert builds and builds == _page(api.get_algorithm_by_id_builds, created.id, limit=5)
    build = api.get_algorithm_build_by_id(author.name, name, builds[0]["build_id"])
    assert build == api.get_algorithm_by_id_build_by_id(created.id, builds[0]["build_id"])
    assert build.commit_sha == builds[0]["commit_sha"]
    logs = api.get_algorithm_build_logs(author.name, name, build.build_id).logs
    assert logs and logs == api.get_algorithm_by_id_build_logs(created.id, build.build_id).logs
    commits = api.commit_log_for_repository(author.name, name).commits
    assert commits[-1].id == compiled.version_info.git_hash
    assert api.get_algorithm_scm_connection_status(author.name, name).scm_connection_status == "active"
    update = generated.UpdateRequest(details=generated.Details(label="Better"))
    assert api.update_algorithm(author.name, name, update).details.label == "Better"
    assert api.update_algorithm_by_id(created.id, update).id == created.id
    assert api.list_scms().results[0].provider == "internal"
    assert api.get_scm("internal").enabled is True
    with pytest.raises(generated.ApiException) as not_here:
        api.get_event_listeners_for_user_by_id(str(uuid.uuid4()))
    assert not_here.value.status == 501 and json.loads(not_here.value.body)["error"]["code"] == 5005
    api.delete_algorithm(author.name, name)
    with pytest.raises(generated.ApiException) as gone:
        api.get_algorithm(author.name, name)
    assert gone.value.status == 404 and json.loads(gone.value.body) == {"error": "No such algorithm"}


def test_the_generated_client_decodes_people(operator: Any) -> None:
    api = operator.manageApi
    user = generated.User(username=f"gen{uuid.uuid4().hex[:6]}", email="gen@example.com", resource_type="user")
    made = api.create_user(user)
    assert made.username == user.username and api.get_user(user.username) == made
    assert api.update_user(user.username, generated.User(**_strings(user), fullname="Gen")).fullname == "Gen"
    basic = next(one.id for one in api.get_all_organization_types() if one.name == "basic")
    about = {"org_name": f"org{uuid.uuid4().hex[:6]}", "org_label": "O", "org_contact_name": "Gen"}
    about |= {"org_email": "org@example.com", "type_id": basic, "resource_type": "organization"}
    organization = api.create_organization(generated.Organization(**about))
    assert organization.org_name == about["org_name"] and api.get_organization(organization.org_name) == organization
    api.add_organization_member(organization.org_name, user.username)
    members = {one["username"]: one["role"] for one in _page(api.list_members, organization.org_name)}
    assert members == {"operator": "owner", user.username: "member"}
    (unused,) = [one for one in _page(api.get_users, limit=1000) if one["username"] == user.username]
    assert unused["email"] == "gen@example.com"
    api.remove_organization_member(organization.org_name, user.username)
    api.list_keys(organization.org_name)
    api.delete_organization(organization.org_name)
    api.delete_user(user.username)
    with pytest.raises(generated.ApiException) as gone:
        api.get_user(user.username)
    assert gone.value.status == 404 and json.loads(gone.value.body)["error"]["code"] == 3000


def _strings(model: Any) -> dict[str, Any]:
    return {key: value for key, value in model.to_dict().items() if value is not None}


@pytest.fixture
def algo(author: Author, service: Service, tmp_path: Path) -> Callable[..., str]:
    """Run the package's own command, with a profile as it would have written it."""
    profile = tmp_path / ".algorithmia" / "config"
    profile.parent.mkdir()
    profile.write_text(
        f'[profiles.default]\napi_key = "{author.key}"\napi_server = "{service.address}"\n'
        'ca_cert = ""\nbearer_token = ""\n'
    )

    def run(*words: str) -> str:
        command = [sys.executable, str(Path(sys.executable).with_name("algo")), *words]
        credentials = f'!f() {{ echo "username={author.name}"; echo "password={author.key}"; }}; f'
        git = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "credential.helper", "GIT_CONFIG_VALUE_0": credentials}
        variables = {**os.environ, **git, "HOME": str(tmp_path), "GIT_TERMINAL_PROMPT": "0"}
        variables.pop("ALGORITHMIA_API_KEY", None)
        done = subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_the_algo_command(algo: Callable[..., str], author: Author, hello: Any, tmp_path: Path) -> None:
    assert algo("languages").splitlines()[1].split()[0] == "anaconda3"
    environments = json.loads(algo("environment", "python3"))
    algo("template", environments[0]["environment_specification_id"], "template")
    assert (tmp_path / "template" / "algorithmia.conf").is_file()
    hello.compile()
    assert json.loads(algo("builds", author.name, "hello"))[0]["status"] == "succeeded"
    assert algo("run", f"{author.name}/hello", "-d", "John").strip() == "hello John"
    algo("clone", f"{author.name}/hello")
    assert "def apply" in (tmp_path / "hello" / "src" / "hello.py").read_text()


@pytest.fixture(scope="module")
def npm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the published client in it."""
    if shutil.which("npm") is None:
        pytest.skip("needs Node.js and npm")
    folder = tmp_path_factory.mktemp("npm")
    shutil.copy(Path(__file__).parent / "manage.js", folder)
    command = ["npm", "install", "--no-audit", "--no-fund", "algorithmia@0.3.10"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_npm_client_takes_an_algorithm_through_its_life(npm: Path, author: Author, service: Service) -> None:
    command = ["node", "--no-deprecation", "manage.js", service.address, author.key, author.name]
    done = subprocess.run(command, cwd=npm, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["result"] for one in said if "result" in one] == ["hello John"] * 4
    asked = [one for one in said if "status" in one]
    for one in asked:
        body = b"" if one["body"] in (None, "") or one["status"] == 204 else json.dumps(one["body"]).encode()
        check_answer(one["method"], one["path"], one["status"], body)
    assert [one["status"] for one in asked] == [404, 201, 200, 200, 200, 200, 200, 204, 404]
    assert asked[-1]["body"] == asked[0]["body"] == {"error": "No such algorithm"}
    assert len(asked[4]["body"]["results"]) == 1
    assert "Beginning container customization" in asked[6]["body"]["logs"]
