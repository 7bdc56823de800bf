"""What is SQLite's own: migrations, what is on disk, several processes, sudden deaths."""

import os
import sqlite3
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from serai_gateway.api.management.errors import of_catalogue
from serai_gateway.build.testing import die_at
from serai_gateway.catalogue import (
    Busy,
    NoRoom,
    SqlCatalogue,
    UnknownSchema,
    database,
    ensure_operator,
    open_catalogue,
    tables,
)
from serai_gateway.catalogue.migrate import migrate, revisions
from serai_gateway.catalogue.testing import new_version


@pytest.fixture
def url(tmp_path):
    return database.sqlite_url(tmp_path / "serai.db")


def test_the_migrations_make_the_tables_that_the_code_expects(url):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    assert migrate(url)
    engine = database.create_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables.metadata) == []
        made = _constraints(connection)
    fresh = sa.create_engine("sqlite://")
    with fresh.begin() as connection:
        tables.metadata.create_all(connection)
        assert made == _constraints(connection)
    engine.dispose()
    fresh.dispose()


def _constraints(connection):
    inspector = sa.inspect(connection)
    return {
        name: (
            sorted(str(check["name"]) + check["sqltext"] for check in inspector.get_check_constraints(name)),
            sorted(str(unique["name"]) for unique in inspector.get_unique_constraints(name)),
            sorted(str(key["name"]) for key in inspector.get_foreign_keys(name)),
            sorted((column["name"], column["nullable"]) for column in inspector.get_columns(name)),
        )
        for name in tables.metadata.tables
    }


def test_the_newest_file_is_the_head_that_alembic_finds(url):
    from alembic.script import ScriptDirectory

    from serai_gateway.catalogue import migrate as module

    engine = database.create_engine(url)
    with engine.connect() as connection:
        scripts = ScriptDirectory.from_config(module._config(connection))
        assert scripts.get_heads() == [revisions()[-1]]
        assert sorted(script.revision for script in scripts.walk_revisions()) == revisions()
    engine.dispose()


def test_an_up_to_date_database_is_opened_without_alembic_and_without_a_write(url, tmp_path):
    migrate(url)
    before = (tmp_path / "serai.db").read_bytes()
    code = (
        "import sys; from serai_gateway.catalogue.migrate import migrate; "
        f"assert migrate({str(url)!r}) is False; assert 'alembic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "serai.db").read_bytes() == before


@pytest.mark.parametrize("name", ["with space", "a?b=c", "a#b", "a%20b", "a:b@c", "ä"])
def test_a_home_may_have_any_name(tmp_path, name):
    open_catalogue(tmp_path / name).close()
    again = open_catalogue(tmp_path / name)
    assert again.generation() == 1
    assert (tmp_path / name / "serai.db").is_file() and len(list(tmp_path.iterdir())) == 1
    again.close()


def test_a_database_of_a_newer_serai_is_left_alone(url, tmp_path):
    migrate(url)
    with sqlite3.connect(tmp_path / "serai.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(UnknownSchema, match="install the newer Serai"):
        open_catalogue(tmp_path)


@pytest.mark.parametrize("attempt", range(5))
def test_several_that_open_a_new_database_at_once_agree(url, attempt):
    with ThreadPoolExecutor(6) as pool:
        did = [future.result(60) for future in [pool.submit(migrate, url) for _ in range(6)]]
    assert sorted(did) == [False] * 5 + [True]


def test_a_migration_that_is_killed_anywhere_leaves_all_or_nothing(tmp_path):
    moment, killed = 1, True
    while killed:
        home = tmp_path / str(moment)
        home.mkdir()
        url = database.sqlite_url(home / "serai.db")
        killed = die_at(moment, lambda url=url: migrate(url))
        engine = database.create_engine(url)
        with engine.connect() as connection:
            made = set(sa.inspect(connection).get_table_names())
        engine.dispose()
        assert made in (set(), set(tables.metadata.tables) | {"alembic_version"})
        catalogue = open_catalogue(home)
        assert catalogue.generation() > 0
        catalogue.close()
        moment += 4
    assert moment > 20


def test_neither_keys_nor_anything_else_are_readable_for_others(tmp_path):
    old = os.umask(0)
    try:
        catalogue = open_catalogue(tmp_path)
        operator = ensure_operator(tmp_path, catalogue)
        secret = catalogue.create_key(operator.account, "mine").text
    finally:
        os.umask(old)
    on_disk = b"".join(path.read_bytes() for path in tmp_path.glob("serai.db*"))
    assert secret.encode() not in on_disk and operator.key.encode() not in on_disk
    for path in (*tmp_path.glob("serai.db*"), tmp_path / "operator.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    catalogue.close()


def test_a_commit_survives_the_loss_of_everything_that_was_not_synced(tmp_path):
    catalogue = open_catalogue(tmp_path)
    assert isinstance(catalogue, SqlCatalogue)
    with catalogue._database.read() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    catalogue.close()


def test_the_operator_keeps_the_key_over_restarts(tmp_path):
    catalogue = open_catalogue(tmp_path)
    first = ensure_operator(tmp_path, catalogue)
    again = ensure_operator(tmp_path, catalogue)
    assert first.is_new and not again.is_new
    assert (again.account, again.key) == (first.account, first.key)
    assert (tmp_path / "operator.key").read_text() == first.key + "\n"
    catalogue.close()


def test_a_revoked_or_damaged_operator_key_is_replaced(tmp_path):
    catalogue = open_catalogue(tmp_path)
    first = ensure_operator(tmp_path, catalogue)
    (key,) = catalogue.keys_of(first.account)
    catalogue.revoke_key(first.account, key.id)
    second = ensure_operator(tmp_path, catalogue)
    assert second.is_new and second.key != first.key and second.account == first.account
    assert catalogue.account_of_key(first.key) is None
    (tmp_path / "operator.key").write_bytes(b"\xff nonsense")
    third = ensure_operator(tmp_path, catalogue)
    assert third.is_new and catalogue.account_of_key(third.key) == first.account
    catalogue.close()


def test_a_first_start_that_is_killed_anywhere_ends_with_a_key_that_works(tmp_path):
    def start(home):
        catalogue = open_catalogue(home)
        operator = ensure_operator(home, catalogue)
        assert catalogue.account_of_key(operator.key) == operator.account
        assert (home / "operator.key").read_text().strip() == operator.key
        catalogue.close()

    moment, killed = 1, True
    while killed:
        home = tmp_path / str(moment)
        home.mkdir()
        open_catalogue(home).close()
        killed = die_at(moment, lambda home=home: start(home))
        start(home)
        moment += 1
    assert moment > 10


def test_publishing_that_is_killed_anywhere_leaves_the_old_version_or_the_new_one(tmp_path):
    catalogue = open_catalogue(tmp_path)
    alice = catalogue.ensure_account("alice")
    algorithm = catalogue.ensure_algorithm(alice, "tool")
    catalogue.publish_version(catalogue.add_version(algorithm, new_version(0)), "1.0.0")
    catalogue.close()

    def publish(number):
        mine = open_catalogue(tmp_path)
        mine.publish_version(mine.add_version(algorithm, new_version(number)), request_key=f"r{number}")
        mine.close()

    number, killed = 1, True
    while killed:
        killed = die_at(number, lambda number=number: publish(number))
        catalogue = open_catalogue(tmp_path)
        seen = catalogue.find_version("alice", "tool", None, None)
        assert seen.hash in (f"{number - 1:040x}", f"{number:040x}")
        catalogue.close()
        publish(number)  # the client that had no answer asks again
        catalogue = open_catalogue(tmp_path)
        assert catalogue.find_version("alice", "tool", None, None).semver == f"1.0.{number}"
        assert len(catalogue.versions_of(algorithm)) == number + 1
        catalogue.close()
        number += 1
    assert number > 10


def test_a_full_disk_and_a_busy_database_are_told_and_change_nothing(url, tmp_path, monkeypatch):
    migrate(url)
    catalogue = SqlCatalogue(url)
    alice = catalogue.ensure_account("alice")
    catalogue.close()
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 50)
    engine = catalogue._database.engine
    event.listen(engine, "connect", lambda connection, record: connection.execute("PRAGMA max_page_count = 1"))
    with pytest.raises(NoRoom, match="disk is full") as full:
        catalogue.set_profile(alice, {"fullname": "x" * 100_000})
    other = sqlite3.connect(tmp_path / "serai.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Busy, match="try again") as busy:
        catalogue.set_profile(alice, {"fullname": "x"})
    other.close()
    assert catalogue.account_named("alice").profile == {}
    assert catalogue.set_profile(alice, {"fullname": "x"}).profile == {"fullname": "x"}
    catalogue.close()
    assert "xxxx" not in str(full.value.__cause__), "what was to be written is not for the log"
    told = [of_catalogue(error.value) for error in (full, busy)]
    assert [(error.status, error.retriable) for error in told] == [(507, False), (503, True)]


def test_what_an_older_serai_has_written_is_found_and_kept_warm_after_the_migration(url, tmp_path):
    from alembic import command

    from serai_gateway.catalogue import migrate as module

    engine = database.create_engine(url)
    with engine.execution_options(serai_write=True).begin() as connection:
        command.upgrade(module._config(connection), "0001")
        for statement in (
            "INSERT INTO accounts VALUES ('a', 'Alice', 'alice', 'user', NULL, 1)",
            "INSERT INTO algorithms VALUES ('b', 'a', 'Tool', 'tool', 'public', 'Finds THINGS in ÄPFEL', 1)",
            "INSERT INTO versions (id, algorithm_id, hash, semver, public, kind, manifest, code_sha, models,"
            """ created_at) VALUES ('c', 'b', 'f', '1.0.0', 1, 'python', '{"min_replicas":2}', 'g', '[]', 1),"""
            """ ('d', 'b', 'e', '0.9.0', 1, 'python', '{}', 'g', '[]', 1)""",
        ):
            connection.exec_driver_sql(statement)
    engine.dispose()
    assert migrate(url)
    catalogue = SqlCatalogue(url)
    (found,) = catalogue.list_algorithms(None, query="alice things äpfel too").results
    assert (found.algorithm.owner, found.algorithm.name, found.semver) == ("Alice", "Tool", "1.0.0")
    assert (found.algorithm.details, found.algorithm.settings, found.algorithm.routing) == ({}, {}, ())
    assert [version.semver for version in catalogue.kept_versions()] == ["1.0.0"]
    assert catalogue.find_version("alice", "tool", "0.9", None).details == {}
    catalogue.close()
