"""Secrets at rest."""

import base64
import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from serai_gateway.catalogue import Secret, open_catalogue
from serai_gateway.vault import BrokenKeyFile, Unreadable, Vault, open_secrets, open_vault, reseal

VALUE = "canary-5f1d0c6e é 😀\n"


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return open_vault(tmp_path)


def test_what_is_sealed_opens_and_shows_nothing(vault: Vault) -> None:
    sealed = vault.seal(VALUE, "algorithm", "secret")
    assert vault.open(sealed, "algorithm", "secret") == VALUE
    assert b"canary" not in sealed
    assert vault.seal(VALUE, "algorithm", "secret") != sealed
    assert "canary" not in repr(vault) and vault.is_current(sealed)


@pytest.mark.parametrize("place", [("other", "secret"), ("algorithm", "other"), ("algorithm\0secret", ""), ("", "")])
def test_it_opens_in_its_own_place_alone(vault: Vault, place: tuple[str, str]) -> None:
    sealed = vault.seal(VALUE, "algorithm", "secret")
    with pytest.raises(Unreadable, match="belongs to something else"):
        vault.open(sealed, *place)


def test_every_changed_bit_is_noticed(vault: Vault) -> None:
    sealed = vault.seal("v", "a", "s")
    for at in range(len(sealed)):
        changed = bytearray(sealed)
        changed[at] ^= 1
        with pytest.raises(Unreadable):
            vault.open(bytes(changed), "a", "s")
    for end in range(len(sealed)):
        with pytest.raises(Unreadable):
            vault.open(sealed[:end], "a", "s")


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    sealed = open_vault(tmp_path).seal(VALUE, "a", "s")
    assert open_vault(tmp_path).open(sealed, "a", "s") == VALUE
    assert stat.S_IMODE((tmp_path / "secrets.key").stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["secrets.key"]


def _seal(home: str, _: int) -> bytes:
    return open_vault(Path(home)).seal(VALUE, "a", "s")


def test_workers_that_start_together_have_one_key(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(6) as pool:
        sealed = pool.starmap(_seal, [(str(tmp_path), number) for number in range(24)])
    vault = open_vault(tmp_path)
    assert {vault.open(one, "a", "s") for one in sealed} == {VALUE}


@pytest.mark.parametrize("text", ["", "no base64!\n", base64.b64encode(b"short").decode(), "\n\n"])
def test_a_broken_key_file_is_not_replaced(tmp_path: Path, text: str) -> None:
    path = tmp_path / "secrets.key"
    path.write_text(text)
    with pytest.raises(BrokenKeyFile, match="backup"):
        open_vault(tmp_path)
    assert path.read_text() == text


def test_a_new_key_takes_the_place_of_an_old_one(tmp_path: Path) -> None:
    catalogue = open_catalogue(tmp_path)
    old = open_vault(tmp_path)
    algorithm = catalogue.ensure_algorithm(catalogue.ensure_account("alice"), "tool")
    catalogue.add_secret(Secret("s", algorithm.id, "a", "", "TOKEN", old.seal(VALUE, algorithm.id, "s")))
    before = open_secrets(catalogue, old, algorithm.id)

    path = tmp_path / "secrets.key"
    first = path.read_text()
    path.write_text(base64.b64encode(os.urandom(32)).decode() + "\n" + first)
    both, said = open_vault(tmp_path), list[str]()
    reseal(catalogue, both, said.append)
    path.write_text(path.read_text().splitlines()[0])
    after = open_secrets(catalogue, open_vault(tmp_path), algorithm.id)
    assert after.values == before.values == {"TOKEN": VALUE} and after.changed_at == before.changed_at
    assert said == []

    with pytest.raises(Unreadable, match="TOKEN"):
        open_secrets(catalogue, old, algorithm.id)
    reseal(catalogue, old, said.append)
    assert len(said) == 1 and "TOKEN" in said[0] and "canary" not in said[0]
    catalogue.close()
