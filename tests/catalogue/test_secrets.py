"""What every catalogue does with secrets."""

import threading
import uuid

import msgspec
import pytest

from serai_gateway.catalogue import NotFound, Secret, Taken, TooMany
from serai_gateway.catalogue.secrets import MAX_SECRETS, MAX_TOTAL_BYTES


@pytest.fixture
def algorithm(catalogue, alice):
    return catalogue.ensure_algorithm(alice, "tool")


def secret(algorithm, key="TOKEN", sealed=b"sealed", **more):
    fields = {"short_name": key.lower(), "description": "", **more}
    return Secret(uuid.uuid4().hex, algorithm.id, key=key, sealed=sealed, **fields)


def test_a_secret_comes_back_as_it_went_in(catalogue, algorithm, reopen):
    assert catalogue.secrets_of(algorithm.id).secrets == ()
    kept = catalogue.add_secret(secret(algorithm, sealed=b"\x00\xff", description="for the bank"))
    assert kept.created_at == kept.modified_at > 0
    assert reopen().secrets_of(algorithm.id).secrets == (kept,)
    assert catalogue.all_secrets() == (kept,)


def test_adding_one_twice_adds_it_once(catalogue, algorithm):
    one = secret(algorithm)
    assert catalogue.add_secret(one) == catalogue.add_secret(one)
    assert len(catalogue.secrets_of(algorithm.id).secrets) == 1


def test_names_are_one_algorithms_own(catalogue, algorithm, alice):
    catalogue.add_secret(secret(algorithm))
    with pytest.raises(Taken, match="TOKEN already"):
        catalogue.add_secret(secret(algorithm, short_name="other"))
    with pytest.raises(Taken, match="token already"):
        catalogue.add_secret(secret(algorithm, "OTHER", short_name="token"))
    catalogue.add_secret(secret(catalogue.ensure_algorithm(alice, "another")))


def test_one_is_changed_and_removed_by_its_own_algorithm_only(catalogue, algorithm, alice):
    kept = catalogue.add_secret(secret(algorithm))
    other = catalogue.ensure_algorithm(alice, "another")
    changed = catalogue.change_secret(msgspec.structs.replace(kept, key="NEW", sealed=b"new"))
    assert (changed.key, changed.sealed, changed.created_at) == ("NEW", b"new", kept.created_at)
    assert changed.modified_at > kept.modified_at
    with pytest.raises(NotFound):
        catalogue.change_secret(msgspec.structs.replace(kept, algorithm_id=other.id))
    with pytest.raises(NotFound):
        catalogue.remove_secret(other.id, kept.id)
    catalogue.remove_secret(algorithm.id, kept.id)
    with pytest.raises(NotFound):
        catalogue.remove_secret(algorithm.id, kept.id)
    assert catalogue.secrets_of(algorithm.id).secrets == ()


def test_every_change_is_later_than_the_one_before_and_moves_the_generation(catalogue, algorithm):
    seen = [(catalogue.secrets_of(algorithm.id).changed_at, catalogue.generation())]

    def note():
        seen.append((catalogue.secrets_of(algorithm.id).changed_at, catalogue.generation()))

    kept = catalogue.add_secret(secret(algorithm))
    note()
    catalogue.change_secret(kept)
    note()
    catalogue.remove_secret(algorithm.id, kept.id)
    note()
    assert seen[0][0] == algorithm.created_at
    times = [at for at, _ in seen]
    assert times == sorted(set(times))
    assert len({generation for _, generation in seen}) == len(seen)


def test_what_fails_changes_nothing(catalogue, algorithm):
    catalogue.add_secret(secret(algorithm))
    before = catalogue.secrets_of(algorithm.id), catalogue.generation()
    with pytest.raises(Taken):
        catalogue.add_secret(secret(algorithm))
    with pytest.raises(NotFound):
        catalogue.remove_secret(algorithm.id, "0" * 32)
    assert (catalogue.secrets_of(algorithm.id), catalogue.generation()) == before


def test_there_is_room_for_so_many_and_no_more(catalogue, algorithm):
    for number in range(MAX_SECRETS):
        last = catalogue.add_secret(secret(algorithm, f"KEY_{number}"))
    with pytest.raises(TooMany, match=f"at most {MAX_SECRETS}"):
        catalogue.add_secret(secret(algorithm))
    catalogue.change_secret(last)
    catalogue.remove_secret(algorithm.id, last.id)
    catalogue.add_secret(secret(algorithm))


def test_they_hold_so_much_together(catalogue, algorithm):
    half = catalogue.add_secret(secret(algorithm, "A", b"x" * (MAX_TOTAL_BYTES // 2)))
    catalogue.add_secret(secret(algorithm, "B", b"x" * (MAX_TOTAL_BYTES // 2)))
    with pytest.raises(TooMany, match="64 KiB"):
        catalogue.add_secret(secret(algorithm, "C", b"x"))
    with pytest.raises(TooMany):
        catalogue.change_secret(msgspec.structs.replace(half, sealed=half.sealed + b"x"))


def test_of_an_algorithm_that_is_gone_there_are_none(catalogue, algorithm):
    gone = msgspec.structs.replace(algorithm, id="0" * 32)
    with pytest.raises(NotFound):
        catalogue.secrets_of(gone.id)
    with pytest.raises(NotFound):
        catalogue.add_secret(secret(gone))


def test_sealing_anew_loses_to_a_change(catalogue, algorithm):
    kept = catalogue.add_secret(secret(algorithm))
    before = catalogue.secrets_of(algorithm.id).changed_at
    catalogue.reseal_secret(kept, b"anew")
    assert catalogue.all_secrets()[0].sealed == b"anew"
    catalogue.reseal_secret(kept, b"late")
    assert catalogue.all_secrets()[0].sealed == b"anew"
    assert catalogue.secrets_of(algorithm.id).changed_at == before


def test_of_two_who_add_the_same_at_once_one_does(catalogue, algorithm):
    outcomes = []

    def add():
        try:
            outcomes.append(catalogue.add_secret(secret(algorithm)))
        except Taken:
            outcomes.append(None)

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(outcomes) == 8 and len([one for one in outcomes if one]) == 1
