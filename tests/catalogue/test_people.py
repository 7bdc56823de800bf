"""What every catalogue does about people: accounts, organizations, who belongs to them, and what may be deleted."""

import itertools
import threading

import pytest

from serai_gateway.catalogue import (
    Account,
    Catalogue,
    CatalogueError,
    InUse,
    InvalidName,
    LastOwner,
    NotFound,
    Taken,
    TooMany,
    belongs_to,
    callers,
    may_administer,
    may_manage,
    organizations,
)
from serai_gateway.catalogue.testing import published


@pytest.fixture
def team(catalogue: Catalogue, alice: Account) -> Account:
    return catalogue.create_organization("Team", alice, {"org_label": "The team"})


def again(catalogue: Catalogue, account: Account) -> Account:
    return catalogue.account_named(account.name)


def roles(catalogue: Catalogue, organization: Account) -> dict[str, str]:
    return {member.name: member.role for member in catalogue.members_of(organization).results}


def test_a_profile_comes_back_as_it_was_written(catalogue, reopen):
    made = catalogue.create_account("Carol", {"email": "carol@example.com"})
    assert reopen().account_named("carol") == made and made.profile == {"email": "carol@example.com"}
    assert catalogue.set_profile(made, {"fullname": "Carol C."}).profile == {
        "email": "carol@example.com",
        "fullname": "Carol C.",
    }
    assert again(catalogue, made).profile["fullname"] == "Carol C."
    with pytest.raises(Taken):
        catalogue.create_account("CAROL", {})
    with pytest.raises(InvalidName):
        catalogue.create_account("no name", {})


def test_whoever_makes_an_organization_owns_it(catalogue, alice, bob, team):
    assert (team.name, team.kind, team.owner_id) == ("Team", "organization", None)
    assert again(catalogue, alice).memberships == ((team.id, "owner"),)
    assert again(catalogue, bob).memberships == ()
    assert catalogue.owners_of(team) == (alice.id,)
    with pytest.raises(Taken):
        catalogue.create_organization("ALICE", bob, {})
    with pytest.raises(NotFound):
        catalogue.create_organization("nested", team, {})
    with pytest.raises(NotFound):
        catalogue.account_named("nested")


def test_a_member_gets_a_role_and_may_get_another(catalogue, alice, bob, team):
    assert catalogue.set_member(team, bob).role == "member"
    assert again(catalogue, bob).memberships == ((team.id, "member"),)
    assert catalogue.set_member(team, bob, "owner").role == "owner"
    assert catalogue.set_member(team, bob).role == "owner"  # invited once more: stays what it is
    assert catalogue.set_member(team, alice, "member").role == "member"
    assert roles(catalogue, team) == {"Alice": "member", "bob": "owner"}
    catalogue.remove_member(team, alice)
    assert roles(catalogue, team) == {"bob": "owner"} and again(catalogue, alice).memberships == ()
    with pytest.raises(NotFound):
        catalogue.remove_member(team, alice)


def test_an_organization_belongs_to_nothing(catalogue, alice, team):
    other = catalogue.create_organization("other", alice, {})
    with pytest.raises(NotFound):
        catalogue.set_member(team, other)
    with pytest.raises(NotFound):
        catalogue.set_member(alice, alice)


def test_the_last_owner_stays(catalogue, alice, bob, team):
    catalogue.set_member(team, bob)
    for leave in (lambda: catalogue.remove_member(team, alice), lambda: catalogue.set_member(team, alice, "member")):
        with pytest.raises(LastOwner, match="last owner of Team"):
            leave()
    with pytest.raises(LastOwner, match="Team"):
        catalogue.delete_account(alice)
    catalogue.set_member(team, bob, "owner")
    catalogue.delete_account(alice)
    assert roles(catalogue, team) == {"bob": "owner"}


def test_of_two_owners_who_leave_at_once_one_stays(catalogue, alice, bob, team):
    catalogue.set_member(team, bob, "owner")
    refused = []

    def leave(account):
        try:
            catalogue.remove_member(team, account)
        except LastOwner:
            refused.append(account.name)

    threads = [threading.Thread(target=leave, args=(account,)) for account in (alice, bob)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert list(roles(catalogue, team)) == refused


def test_who_manages_an_organization_is_an_owner_that_nobody_removes(catalogue, alice, bob):
    team = catalogue.ensure_account("team", "organization", alice)
    catalogue.set_member(team, bob, "owner")
    assert roles(catalogue, team) == {"Alice": "owner", "bob": "owner"}
    assert catalogue.owners_of(team) == (alice.id, bob.id)
    assert again(catalogue, alice).memberships == ((team.id, "owner"),)
    assert catalogue.set_member(team, alice).role == "owner"
    for leave in (lambda: catalogue.remove_member(team, alice), lambda: catalogue.set_member(team, alice, "member")):
        with pytest.raises(LastOwner, match="stays its owner"):
            leave()
    catalogue.remove_member(team, bob)
    with pytest.raises(InUse, match="manages team"):
        catalogue.delete_account(alice)


def test_rights_are_those_of_the_role_and_a_database_says_the_same(catalogue, alice, bob, operator):
    carol, dave = catalogue.ensure_account("carol"), catalogue.ensure_account("dave")
    team = catalogue.create_organization("team", alice, {})
    managed = catalogue.ensure_account("managed", "organization", dave)
    catalogue.set_member(team, bob)
    owners = [again(catalogue, account) for account in (alice, bob, carol, dave, team, managed, operator)]
    for owner in owners:
        published(catalogue, owner, "secret", public=False)
    administers = {("Alice", "team"), ("dave", "managed")}
    for caller, owner in itertools.product([*owners, None], owners):
        name = caller.name if caller else None
        is_all = caller is not None and (caller.kind == "operator" or caller.id == owner.id)
        may = may_manage(caller, owner), may_administer(caller, owner)
        decides = is_all or (name, owner.name) in administers
        assert may == (decides or (name, owner.name) == ("bob", "team"), decides), (name, owner.name)
        assert caller is None or belongs_to(caller, owner.id) == may[0]
        listed = {entry.algorithm.owner for entry in catalogue.list_algorithms(caller).results}
        assert (owner.name in listed) == may[0], (name, owner.name)
        try:
            found = catalogue.find_version(owner.name, "secret", "latestPrivate", caller) is not None
        except NotFound:
            found = False
        assert found == may[0], (name, owner.name)


def test_lists_are_paged_by_name_without_gaps(catalogue, alice, team):
    names = [f"user{number:02}" for number in range(7)]
    for name in reversed(names):
        catalogue.set_member(team, catalogue.create_account(name.title(), {}))

    def pages(read):
        marker, seen = None, []
        while True:
            page = read(marker)
            seen += [one.name.lower() for one in page.results]
            marker = page.marker
            if marker is None:
                return seen
            assert len(page.results) == 3

    assert pages(lambda marker: catalogue.list_accounts("user", limit=3, marker=marker)) == ["alice", *names]
    assert pages(lambda marker: catalogue.list_accounts("organization", limit=3, marker=marker)) == ["team"]
    assert pages(lambda marker: catalogue.members_of(team, limit=3, marker=marker)) == ["alice", *names]


def test_an_account_that_owns_algorithms_is_not_deleted(catalogue, alice, team):
    published(catalogue, team, "tool")
    with pytest.raises(InUse, match="owns Team/tool; delete"):
        catalogue.delete_account(team)
    published(catalogue, team, "tool2")
    with pytest.raises(InUse, match="and more"):
        catalogue.delete_account(team)
    assert again(catalogue, team) == team


def test_what_is_deleted_is_gone_and_its_name_stays_taken(catalogue, alice, bob, team):
    key = catalogue.create_key(bob, "laptop").text
    catalogue.set_member(team, bob)
    catalogue.delete_account(bob)
    assert catalogue.caller_of_key(key) is None and roles(catalogue, team) == {"Alice": "owner"}
    with pytest.raises(NotFound):
        catalogue.account_named("bob")
    for use in (
        lambda: catalogue.delete_account(bob),
        lambda: catalogue.create_key(bob, "again"),
        lambda: catalogue.set_member(team, bob),
        lambda: catalogue.set_profile(bob, {}),
        lambda: catalogue.create_organization("bobs", bob, {}),
    ):
        with pytest.raises(NotFound):
            use()
    for take in (
        lambda: catalogue.create_account("BOB", {}),
        lambda: catalogue.ensure_account("bob"),
        lambda: catalogue.create_organization("Bob", alice, {}),
    ):
        with pytest.raises(Taken):
            take()
    catalogue.delete_account(team)
    assert again(catalogue, alice).memberships == ()


def test_nothing_can_be_made_for_an_account_that_is_gone(catalogue, bob):
    catalogue.delete_account(bob)
    with pytest.raises(CatalogueError):
        catalogue.ensure_algorithm(bob, "late")


def test_of_many_who_ask_for_a_name_at_once_one_gets_it(catalogue, alice):
    made, refused = [], []

    def ask(make):
        try:
            made.append(make().id)
        except Taken:
            refused.append(make)

    asks = [lambda: catalogue.create_account("Wanted", {}), lambda: catalogue.create_organization("WANTED", alice, {})]
    threads = [threading.Thread(target=ask, args=(make,)) for make in asks * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert made == [catalogue.account_named("wanted").id] and len(refused) == 7


def test_the_operator_cannot_be_deleted(catalogue, operator):
    with pytest.raises(InUse, match="runs this Serai"):
        catalogue.delete_account(operator)


def test_keys_and_memberships_have_a_limit(catalogue, alice, bob, monkeypatch):
    monkeypatch.setattr(callers, "MAX_KEYS", 2)
    monkeypatch.setattr(organizations, "MAX_MEMBERSHIPS", 2)
    keys = [catalogue.create_key(alice, "x") for _ in range(2)]
    with pytest.raises(TooMany, match="revoke one"):
        catalogue.create_key(alice, "x")
    catalogue.revoke_key(alice, keys[0].key.id)
    catalogue.create_key(alice, "x")
    teams = [catalogue.create_organization(f"team{number}", alice, {}) for number in range(2)]
    with pytest.raises(TooMany, match="leave one"):
        catalogue.create_organization("team2", alice, {})
    third = catalogue.create_organization("team3", bob, {})
    with pytest.raises(TooMany):
        catalogue.set_member(third, alice)
    catalogue.delete_account(teams[0])
    assert catalogue.set_member(third, alice).role == "member"


def test_caches_hear_of_every_change_of_people_and_of_nothing_else(catalogue, reopen, bob, team):
    other = reopen()

    def moves(change):
        before = other.generation()
        change()
        return other.generation() != before

    assert moves(lambda: catalogue.set_profile(bob, {"email": "b@example.com"}))
    assert moves(lambda: catalogue.set_member(team, bob))
    assert not moves(lambda: catalogue.set_member(team, bob))
    assert moves(lambda: catalogue.set_member(team, bob, "owner"))
    assert moves(lambda: catalogue.remove_member(team, bob))
    assert not moves(lambda: catalogue.set_profile(bob, {"email": "b@example.com"}))
    assert not moves(lambda: catalogue.members_of(team))
    assert moves(lambda: catalogue.delete_account(bob))
    assert moves(lambda: catalogue.create_organization("more", again(catalogue, catalogue.account_named("Alice")), {}))
