"""package.json and its lock files: what npm is given of them, and what is refused before it sees anything."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serai_gateway.build.errors import InvalidRequirements
from serai_gateway.build.package_json import installed_from_elsewhere, parse_packages

SHA = "sha512-AAAA"


def package(**values):
    return json.dumps({"name": "x", "version": "1.0.0", **values}, indent=2)


def parse(text, lock=None, **options):
    packages = parse_packages(text, lock if lock is None or isinstance(lock, str) else json.dumps(lock), **options)
    assert packages is not None
    return json.loads(packages.package), None if packages.lock is None else json.loads(packages.lock)


def test_only_packages_reach_npm_and_nothing_else_of_an_author():
    asked, lock = parse(
        package(
            dependencies={"ms": "^2.1.3", "@scope/name": "~1.0.0 || >=2 <3", "old": "npm:Older@1.x"},
            optionalDependencies={"fast": "*"},
            peerDependencies={"react": "latest"},
            devDependencies={"tool": "github:someone/tool"},
            overrides={"ms": "$ms", "a": {"b@^1": "2.0.0"}},
            scripts={"preinstall": "curl evil"},
            config={"registry": "http://evil"},
            publishConfig={"registry": "http://evil"},
            bundleDependencies=["ms"],
        )
    )
    assert lock is None
    assert asked == {
        "name": "algorithm",
        "version": "0.0.0",
        "private": True,
        "dependencies": {"ms": "^2.1.3", "@scope/name": "~1.0.0 || >=2 <3", "old": "npm:Older@1.x"},
        "optionalDependencies": {"fast": "*"},
        "peerDependencies": {"react": "latest"},
        "overrides": {"ms": "$ms", "a": {"b@^1": "2.0.0"}},
    }


def test_the_same_packages_are_the_same_text_however_they_are_written():
    one = parse_packages('{"dependencies": {"a": "1", "b": "2"}, "name": "x"}')
    other = parse_packages('{"name": "y", "dependencies": {"b": "2", "a": "1"}, "scripts": {}}')
    assert one == other != parse_packages('{"dependencies": {"a": "1", "b": "3"}}')


@pytest.mark.parametrize("values", [{}, {"dependencies": {}}, {"dependencies": None}, {"devDependencies": {"a": "1"}}])
def test_without_packages_there_is_nothing_to_install(values):
    assert parse_packages(package(**values)) is None


@pytest.mark.parametrize(
    "wanted",
    [
        "github:someone/thing", "someone/thing", "git+ssh://git@host/x.git", "git://host/x", "https://host/x.tgz",
        "http://169.254.169.254/latest", "file:../x", "file:/etc/passwd", "../x", "./x", "/etc", "~/x", "x.tgz",
        "x.tar.gz", "link:../x", "workspace:*", "portal:../x", "npm:../x@1", "npm:x@http://host/y", "npm:@1", "C:\\x",
        "a\nb", "1" * 300, ".", 7, None, ["1"], {"version": "1"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("section", ["dependencies", "optionalDependencies", "peerDependencies", "overrides"])
def test_what_is_no_version_is_refused_with_its_line(section, wanted):
    values = {"dependencies": {"ms": "1"}, section: {"thing": wanted}}
    if section == "overrides" and isinstance(wanted, dict):
        wanted["version"] = "file:x"
    with pytest.raises(InvalidRequirements, match=r"^package\.json( line \d+)?: ") as error:
        parse_packages(package(**values))
    assert section in str(error.value) and "only names and versions from the package index" in str(error.value)
    assert len(str(error.value)) < 500


def test_the_line_is_the_right_one():
    text = '{\n "dependencies": {\n  "ms": "^2",\n  "thing": "github:a/b"\n }\n}'
    with pytest.raises(InvalidRequirements, match=r'package\.json line 4: dependencies: "thing": "github:a/b" is an'):
        parse_packages(text)


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "@a", "@a/b/c", ".hidden", "-x", "node_modules", "a b", "ä", "x" * 215]
)
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(InvalidRequirements, match="is not the name of a package"):
        parse_packages(package(dependencies={name: "1"}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is not an object"),
        ('{"dependencies": ["ms"]}', "dependencies: is not an object"),
        ('{"workspaces": ["a"], "dependencies": {"a": "1"}}', "workspaces are not installed"),
        (package(dependencies={f"a{n}": "1" for n in range(501)}), "more than 500 packages"),
    ],
    ids=range(6),
)
def test_a_file_that_is_none_is_refused(text, message):
    with pytest.raises(InvalidRequirements, match=message):
        parse_packages(text)


DEPENDS = package(dependencies={"ms": "^2"}, devDependencies={"tool": "1"})


def lock_3(**places):
    packages = {place.replace("__", "/"): entry for place, entry in places.items()}
    return {"lockfileVersion": 3, "packages": {"": {"scripts": {"install": "evil"}}, **packages}}


def test_a_lock_file_says_versions_and_checksums_and_no_addresses():
    address = "https://registry.example/@s/ms/-/ms-2.1.3.tgz"
    asked, lock = parse(
        DEPENDS,
        lock_3(
            node_modules__ms={"version": "2.1.3", "resolved": address, "integrity": SHA, "name": "@s/ms"},
            node_modules__tool={"version": "1.0.0", "resolved": "git+ssh://host/tool", "dev": True},
            node_modules__a__node_modules__b={"version": "1.0.0", "integrity": SHA, "inBundle": True},
        ),
    )
    assert lock == {
        "name": "algorithm",
        "version": "0.0.0",
        "lockfileVersion": 3,
        "requires": True,
        "packages": {
            "": asked,
            "node_modules/ms": {"version": "2.1.3", "integrity": SHA, "name": "@s/ms"},
            "node_modules/a/node_modules/b": {"version": "1.0.0", "integrity": SHA, "inBundle": True},
        },
    }


def test_ranges_of_packages_in_a_lock_file_may_be_odd():
    ranges = {"b": ">= 1 , <3", "c": "", "d": "npm:e@^1", "f": "next_one"}
    _, lock = parse(DEPENDS, lock_3(node_modules__ms=ENTRY | {"dependencies": ranges}))
    assert lock["packages"]["node_modules/ms"]["dependencies"] == ranges


def test_a_lock_file_of_the_old_kind_is_understood():
    below = {"b": {"version": "npm:c@1.0.0", "resolved": "https://x/c/-/c-1.0.0.tgz"}}
    old = {"ms": {"version": "2.1.3", "integrity": SHA, "dependencies": below}, "tool": {"version": "1", "dev": True}}
    _, lock = parse(DEPENDS, {"lockfileVersion": 1, "dependencies": old})
    assert lock == {
        "lockfileVersion": 1,
        "requires": True,
        "dependencies": {
            "ms": {"version": "2.1.3", "integrity": SHA, "dependencies": {"b": {"version": "npm:c@1.0.0"}}}
        },
    }


ENTRY = {"version": "1.0.0", "integrity": SHA}


@pytest.mark.parametrize(
    "lock",
    [
        lock_3(node_modules__ms=ENTRY | {"resolved": "git+ssh://git@host/ms.git#1"}),
        lock_3(node_modules__ms=ENTRY | {"resolved": "https://evil.example/ms.tgz"}),
        lock_3(node_modules__ms=ENTRY | {"resolved": "https://host/other/-/other-1.0.0.tgz"}),
        lock_3(node_modules__ms=ENTRY | {"resolved": "https://host/ms/-/ms-2.0.0.tgz"}),
        lock_3(node_modules__ms=ENTRY | {"resolved": "file:../ms/-/ms-1.0.0.tgz"}),
        lock_3(node_modules__ms=ENTRY | {"resolved": ["x"]}),
        lock_3(node_modules__ms={"link": True, "resolved": "packages/ms"}),
        lock_3(node_modules__ms={"version": "file:../ms"}),
        lock_3(node_modules__ms={"version": 1}),
        lock_3(node_modules__ms="1.0.0"),
        lock_3(packages__ms=ENTRY),
        {"lockfileVersion": 3, "packages": {"node_modules/..": ENTRY}},
        {"lockfileVersion": 3, "packages": {"../ms": ENTRY}},
        {"lockfileVersion": 3, "packages": {"node_modules/a/../../ms": ENTRY}},
        {"lockfileVersion": 1, "dependencies": {"ms": {"version": "git+https://host/ms.git"}}},
        {"lockfileVersion": 1, "dependencies": {"ms": {"version": "1.0.0", "resolved": "http://evil/x"}}},
        {"lockfileVersion": 1, "dependencies": {"../ms": {"version": "1.0.0"}}},
        lock_3(node_modules__ms=ENTRY | {"dependencies": {"b": "http://127.0.0.1:8080/b.tgz"}}),
        lock_3(node_modules__ms=ENTRY | {"peerDependencies": {"b": "git+ssh://host/b"}}),
        lock_3(node_modules__ms=ENTRY | {"optionalDependencies": {"b": "somebody/b"}}),
        lock_3(node_modules__ms=ENTRY | {"dependencies": {"../b": "1.0.0"}}),
        {"lockfileVersion": 1, "dependencies": {"ms": {"version": "1.0.0", "requires": {"b": "http://host/b"}}}},
    ],
    ids=range(22),
)
def test_a_lock_file_that_leads_elsewhere_is_refused(lock):
    with pytest.raises(InvalidRequirements, match=r"^package-lock\.json: .* is an address or a folder"):
        parse(DEPENDS, lock)


@pytest.mark.parametrize(
    "lock", ["", "[]", "{}", '{"lockfileVersion": 4, "packages": {}}', '{"lockfileVersion": 3, "packages": []}']
)
def test_what_is_no_lock_file_is_refused(lock):
    with pytest.raises(InvalidRequirements, match=r"^npm-shrinkwrap\.json: "):
        parse(DEPENDS, lock, lock_file="npm-shrinkwrap.json")


def test_a_lock_file_nested_without_end_is_refused():
    lock = {"version": "1.0.0"}
    for _ in range(100):
        lock = {"version": "1.0.0", "dependencies": {"a": lock}}
    with pytest.raises(InvalidRequirements, match="is not a package"):
        parse(DEPENDS, {"lockfileVersion": 1, "dependencies": {"a": lock}})


def test_what_npm_installed_from_elsewhere_is_found():
    packages = {"node_modules/a": {"resolved": "https://x/a/-/a-1.tgz"}, "node_modules/b": {"version": "1"}}
    assert list(installed_from_elsewhere(json.dumps({"packages": packages}))) == []
    packages |= {"node_modules/c": {"resolved": "git+ssh://x"}, "node_modules/d": {"link": True, "resolved": "d"}}
    assert list(installed_from_elsewhere(json.dumps({"packages": packages}))) == ["node_modules/c", "node_modules/d"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=20), inner, max_size=3),
    max_leaves=10,
)
FILES = st.fixed_dictionaries(
    {},
    optional={
        "dependencies": st.dictionaries(st.sampled_from(["a", "@b/c", "../x"]), JSON | st.just("1")) | JSON,
        "overrides": JSON,
        "peerDependenciesMeta": JSON,
    },
)
LOCKS = st.fixed_dictionaries(
    {"lockfileVersion": st.sampled_from([1, 2, 3])},
    optional={
        "packages": st.dictionaries(st.sampled_from(["", "node_modules/a", "x"]), JSON) | JSON,
        "dependencies": JSON,
    },
)


@given(FILES, st.none() | LOCKS)
def test_no_values_lead_to_any_other_error(values, lock):
    try:
        packages = parse_packages(json.dumps(values), None if lock is None else json.dumps(lock))
    except InvalidRequirements:
        return
    assert packages is None or set(json.loads(packages.package)["dependencies"]) <= {"a", "@b/c"}
