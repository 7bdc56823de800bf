"""Which build comes next: one at a time of an algorithm, so many in all, turns between accounts."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from serai_gateway.builder.queue import Full, Queue, Ticket


def ticket(id, algorithm=None, account="alice"):
    return Ticket(id, algorithm or id, account)


def started(queue):
    """All that can begin now."""
    found = []
    while (chosen := queue.next()) is not None:
        found.append(chosen.id)
    return found


def test_so_many_run_at_once_and_the_rest_in_the_order_in_which_they_came():
    queue = Queue(max_running=2)
    assert [queue.add(ticket(id, account=id)) for id in "abcd"] == [None] * 4
    assert started(queue) == ["a", "b"]
    queue.ended("b")
    assert started(queue) == ["c"] and [id for id in "abcd" if queue.is_waiting(id)] == ["d"]


def test_builds_of_one_algorithm_follow_each_other_and_others_pass_them():
    queue = Queue(max_running=4)
    for id, algorithm in (("a", "x"), ("b", "x"), ("c", "y"), ("d", "x")):
        queue.add(ticket(id, algorithm))
    assert started(queue) == ["a", "c"]
    assert [queue.before(id) for id in "abcd"] == [0, 1, 0, 2]
    queue.ended("a")
    assert started(queue) == ["b"]


def test_a_turn_that_is_kept_frees_the_place_and_not_the_algorithm():
    queue = Queue(max_running=1)
    for id, algorithm in (("a", "x"), ("b", "x"), ("c", "y")):
        queue.add(ticket(id, algorithm))
    assert started(queue) == ["a"]
    queue.ended("a", keeps_turn=True)
    assert started(queue) == ["c"] and queue.before("b") == 1
    queue.ended("c")
    assert started(queue) == []
    queue.release("a")
    assert started(queue) == ["b"]


def test_whoever_has_the_fewest_running_goes_first_and_nobody_has_all_places():
    queue = Queue(max_running=3)
    for number in range(4):
        queue.add(ticket(f"a{number}"))
    assert started(queue) == ["a0", "a1"], "the last place is for others"
    queue.add(ticket("b0", account="bob"))
    assert started(queue) == ["b0"]
    queue.ended("a0")
    queue.add(ticket("c0", account="carol"))
    assert started(queue) == ["c0"]
    queue.ended("b0")
    assert started(queue) == ["a2"]
    alone = Queue(max_running=1)
    alone.add(ticket("a"))
    assert started(alone) == ["a"]


def test_there_is_room_for_so_many_of_each_and_of_all():
    queue = Queue(max_running=1, max_waiting=3, max_waiting_of_account=2)
    queue.add(ticket("r"))
    assert started(queue) == ["r"]
    assert queue.add(ticket("a")) is queue.add(ticket("b")) is None
    mine = Full("2 builds of yours are waiting already; try again when one has ended", True)
    assert queue.add(ticket("c")) == mine
    assert queue.add(ticket("d", account="bob")) is None
    assert queue.add(ticket("e", account="carol")) == Full("3 builds are waiting already; try again later", False)
    assert queue.add(ticket("c")) == mine, "what they can change themselves is said first"
    queue.release("a")
    assert not queue.is_waiting("a") and queue.add(ticket("c")) is None


def test_ends_and_releases_of_what_is_not_there_change_nothing():
    queue = Queue(max_running=1)
    queue.add(ticket("a", "x"))
    queue.add(ticket("b", "x"))
    assert started(queue) == ["a"]
    for _ in range(2):
        queue.ended("nothing")
        queue.release("nothing")
        queue.release("a")  # it runs
        queue.ended("b")  # it waits
    assert started(queue) == [] and queue.is_waiting("b")
    queue.ended("a")
    queue.ended("a")
    assert started(queue) == ["b"]


class AnyOrder(RuleBasedStateMachine):
    """Whatever comes in whatever order: the promises hold, and when all have ended, all have had their turn."""

    def __init__(self):
        super().__init__()
        self.queue = Queue(max_running=2, max_waiting=10, max_waiting_of_account=6)
        self.waiting, self.running, self.kept, self.count = {}, {}, {}, 0

    @rule(algorithm=st.sampled_from("xyz"), account=st.sampled_from("abc"))
    def add(self, algorithm, account):
        self.count += 1
        new = Ticket(str(self.count), algorithm, account)
        of_account = sum(other.account == account for other in self.waiting.values())
        refused = self.queue.add(new)
        assert (refused is not None) == (len(self.waiting) >= 10 or of_account >= 6)
        if not refused:
            self.waiting[new.id] = new

    @rule()
    def begin(self):
        chosen = self.queue.next()
        busy = {one.algorithm for one in (*self.running.values(), *self.kept.values())}
        running = [one.account for one in self.running.values()]
        ready = [one for one in self.waiting.values() if one.algorithm not in busy and one.account not in running]
        if chosen is None:
            assert len(self.running) == 2 or not ready
            return
        assert running.count(chosen.account) == min(running.count(one.account) for one in ready)
        assert chosen == next(one for one in ready if one.account == chosen.account), "of one account in order"
        self.running[chosen.id] = self.waiting.pop(chosen.id)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), keeps=st.booleans())
    def end(self, data, keeps):
        id = data.draw(st.sampled_from(sorted(self.running)))
        self.queue.ended(id, keeps_turn=keeps)
        one = self.running.pop(id)
        if keeps:
            self.kept[id] = one

    @precondition(lambda self: self.waiting or self.kept)
    @rule(data=st.data())
    def release(self, data):
        id = data.draw(st.sampled_from(sorted({**self.waiting, **self.kept})))
        self.queue.release(id)
        self.waiting.pop(id, None)
        self.kept.pop(id, None)

    @invariant()
    def one_of_each_algorithm_and_two_in_all(self):
        algorithms = [one.algorithm for one in (*self.running.values(), *self.kept.values())]
        assert len(algorithms) == len(set(algorithms)) and len(self.running) <= 2
        assert len(self.running) == len({one.account for one in self.running.values()}), "no account has all places"
        assert all(self.queue.is_waiting(id) for id in self.waiting)

    def teardown(self):
        for id in list(self.kept):
            self.queue.release(id)
        self.kept.clear()
        while self.running or self.waiting:
            for id in list(self.running):
                self.queue.ended(id)
                del self.running[id]
            before = len(self.waiting)
            self.begin()
            assert len(self.waiting) < before or not before, "somebody starves"


TestAnyOrder = AnyOrder.TestCase


@given(st.lists(st.tuples(st.sampled_from("xy"), st.sampled_from("ab")), max_size=30))
def test_one_that_floods_does_not_keep_another_waiting(flood):
    queue = Queue(max_running=2, max_waiting=100, max_waiting_of_account=100)
    for number, (algorithm, account) in enumerate(flood):
        queue.add(Ticket(f"f{number}", algorithm, account))
    running = started(queue)
    queue.add(Ticket("mine", "mine", "me"))
    for _ in "ab":  # at most one build of each of those who came before
        running += started(queue)
        if "mine" not in running:
            queue.ended(running.pop(0))
    assert "mine" in running + started(queue)
