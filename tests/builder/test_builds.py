"""Builds from when they are asked for until their turn is over, with a real catalogue and real repositories."""

import asyncio
import threading
import time

import pytest

from serai_gateway.build import BuildError, patience
from serai_gateway.build.patience import check_patience
from serai_gateway.build.testing import HELLO
from serai_gateway.builder.builds import Build, Builds
from serai_gateway.builder.jobs import CommitJob

pytestmark = pytest.mark.needs_bubblewrap


class Asked:
    """One request and what came of it."""

    def __init__(self, builds, job, *, keeps_turn=False):
        self.lines = []
        self.end = asyncio.get_running_loop().create_future()
        self.build = Build(job, self.lines.append, self.end.set_result, keeps_turn=keeps_turn)
        builds.submit(self.build)

    @property
    def id(self):
        return self.build.id


@pytest.fixture
def run(shop):
    """Run a coroutine function with new builds; they are stopped afterwards."""

    def run(body):
        async def main():
            builds = Builds(shop)
            try:
                return await asyncio.wait_for(body(builds), 60)
            finally:
                builds.stop()
                await builds.join()

        return asyncio.run(main())

    return run


@pytest.fixture
def job(git, hello, alice):
    return lambda number=0, **options: CommitJob(
        hello, alice, git.commit_of(HELLO | {"number": f"{number}"}), **options
    )


def hold(shop):
    """Trials wait until the second event is set; the first says that one runs."""
    runs, go = threading.Event(), threading.Event()

    def probe(spec, sample, log):
        runs.set()
        while not go.wait(0.02):
            check_patience()

    shop.probe.action = probe
    return runs, go


def test_a_commit_is_built_and_the_log_comes_before_its_end(run, job, catalogue, hello):
    async def body(builds):
        asked = Asked(builds, job())
        assert catalogue.find_build(asked.id).status == "running"
        ended = await asked.end
        assert ended.outcome == "built" and ended.build_id == asked.id
        assert asked.lines[0].startswith("building alice/hello") and asked.lines[-1].startswith("built alice/hello@")
        (version,) = catalogue.versions_of(hello)
        assert ended.made.hash == version.hash and catalogue.find_build(asked.id).status == "succeeded"

    run(body)


def test_the_second_of_one_algorithm_waits_for_the_turn_of_the_first(run, job, shop):
    async def body(builds):
        runs, go = hold(shop)
        first, second = Asked(builds, job(1), keeps_turn=True), Asked(builds, job(2))
        assert second.lines == ["waiting for 1 other build of this algorithm"]
        await asyncio.to_thread(runs.wait, 30)
        go.set()
        assert (await first.end).outcome == "built"
        await asyncio.sleep(0.1)
        assert not second.end.done() and len(second.lines) == 1, "git has not moved the branch yet"
        builds.release(first.id)
        assert (await second.end).outcome == "built"

    run(body)


def test_a_turn_that_is_given_back_while_it_builds_calls_it_off(run, job, shop, catalogue, hello):
    async def body(builds):
        runs, _ = hold(shop)
        first, second = Asked(builds, job(1), keeps_turn=True), Asked(builds, job(2))
        await asyncio.to_thread(runs.wait, 30)
        builds.release(first.id)
        builds.release(first.id)
        ended = await first.end
        assert ended.outcome == "failed" and "whoever pushed has gone" in ended.message
        assert catalogue.find_build(first.id).status == "interrupted"
        builds.release(second.id)
        builds.release("nothing")
        await asyncio.sleep(0)

    run(body)
    assert {build.status for build in catalogue.builds_of(hello)} == {"interrupted"}
    assert catalogue.versions_of(hello) == ()


def test_one_that_waits_and_is_given_up_never_runs(run, job, shop, catalogue):
    async def body(builds):
        runs, go = hold(shop)
        first, second, third = (Asked(builds, job(number), keeps_turn=True) for number in range(3))
        await asyncio.to_thread(runs.wait, 30)
        builds.release(second.id)
        assert catalogue.find_build(second.id).status == "interrupted"
        go.set()
        await first.end
        builds.release(first.id)
        assert (await third.end).outcome == "built" and not second.end.done()

    run(body)


def test_a_stop_calls_off_what_runs_and_drops_what_waits(run, job, shop, catalogue, hello):
    async def body(builds):
        runs, _ = hold(shop)
        asked = [Asked(builds, job(number)) for number in range(3)]
        await asyncio.to_thread(runs.wait, 30)
        builds.stop()
        for one in asked:
            assert "Serai is stopping" in (await one.end).message
        late = Asked(builds, job(9))
        assert (await late.end).outcome == "busy"

    run(body)
    assert {build.status for build in catalogue.builds_of(hello)} == {"interrupted"}


def test_a_build_that_takes_too_long_is_stopped(run, job, shop, catalogue, monkeypatch):
    monkeypatch.setattr(patience.Patience.__init__, "__defaults__", (0.5,))

    async def body(builds):
        hold(shop)
        started = time.monotonic()
        asked = Asked(builds, job())
        ended = await asked.end
        assert ended.outcome == "failed" and "took longer than" in ended.message
        assert time.monotonic() - started < 20 and catalogue.find_build(asked.id).status == "failed"

    run(body)


def test_authors_read_what_went_wrong_and_nobody_reads_what_is_ours(run, job, shop, catalogue):
    async def body(builds):
        def fails(spec, sample, log):
            raise BuildError("apply is missing")

        shop.probe.action = fails
        ended = await Asked(builds, job(1)).end
        assert (ended.outcome, ended.message) == ("failed", "apply is missing")

        def breaks(spec, sample, log):
            raise ZeroDivisionError("secret detail")

        shop.probe.action = breaks
        asked = Asked(builds, job(2))
        ended = await asked.end
        assert ended.outcome == "internal" and "secret" not in ended.message and asked.id in ended.message
        assert catalogue.find_build(asked.id).status == "failed"

    run(body)


def test_a_push_that_is_not_first_is_told_to_fetch(run, job, git, catalogue, hello):
    async def body(builds):
        asked = Asked(builds, job(1, expected="1" * 40))
        ended = await asked.end
        assert ended.outcome == "failed" and "fetch, merge, and push again" in ended.message
        assert catalogue.find_build(asked.id).status == "failed"
        assert (await Asked(builds, job(1, expected="")).end).outcome == "built"

    run(body)


def test_a_repository_that_has_gone_ends_the_build_that_waited_for_it(run, job, git, catalogue, hello):
    async def body(builds):
        pushed, compiled = job(1, expected=""), job(2)
        git.repository.remove()
        for one in (pushed, compiled):
            asked = Asked(builds, one)
            assert (await asked.end).outcome in ("failed", "internal")
            assert catalogue.find_build(asked.id).status == "failed"

    run(body)


def test_an_algorithm_that_was_deleted_ends_its_builds(run, job, shop, catalogue, hello):
    async def body(builds):
        runs, go = hold(shop)
        asked = Asked(builds, job(1))
        await asyncio.to_thread(runs.wait, 30)
        catalogue.delete_algorithm(hello)
        go.set()
        assert (await asked.end).outcome == "failed"

    run(body)


def test_more_than_may_wait_are_told_to_come_back(run, job, shop):
    async def body(builds):
        _, go = hold(shop)
        one = job(1)
        asked = [Asked(builds, one) for _ in range(10)]
        ended = await asked[-1].end
        assert (ended.outcome, ended.build_id) == ("too_many", "") and "8 builds of yours are waiting" in ended.message
        go.set()
        assert [(await other.end).outcome for other in asked[:-1]] == ["built"] * 9

    run(body)
