"""A model's queue: bounded, fair between payers, and no ticket gets lost in it."""

from hypothesis import given
from hypothesis import strategies as st

from serai_gpu_pool.core import Ticket
from serai_gpu_pool.scheduling.queues import FairQueue
from serai_gpu_pool.scheduling.turns import Turns


def ticket(id: int, payer: str = "p", payload: bytes = b"xx", priority: int = 0, owner: str = "") -> Ticket:
    return Ticket(id, "m", payer, 10.0, payload, priority=priority, owner=owner)


def filled(*tickets: Ticket) -> FairQueue:
    queue = FairQueue(100)
    for one in tickets:
        queue.push(one)
    return queue


def ids(tickets: list[Ticket]) -> list[int]:
    return [one.id for one in tickets]


def test_payers_take_turns_and_each_keeps_its_order():
    queue = filled(*(ticket(id, payer) for id, payer in enumerate("aaaabbc")))
    assert ids(queue.take(5, 1000)) == [0, 4, 6, 1, 5]
    assert ids(queue.drain()) == [2, 3]
    assert len(queue) == 0 and queue.num_bytes == 0


def test_the_payer_that_has_had_least_of_the_device_is_first():
    turns = Turns()
    turns.charge("a", 3.0)
    turns.charge("b", 1.0)
    turns.charge("c", 2.0)
    queue = filled(*(ticket(id, payer) for id, payer in enumerate("abc")))
    assert queue.rank(turns) == (turns.clock("b"), 0, 0.0)
    assert ids(queue.take(3, 1000, turns)) == [1, 2, 0]


def test_smaller_priorities_of_one_payer_go_first_and_those_of_others_do_not_matter():
    queue = filled(ticket(0), ticket(1, priority=5), ticket(2, priority=-1), ticket(3), ticket(4, "q", priority=-9))
    assert ids(queue.take(9, 1000)) == [2, 4, 0, 3, 1]


def test_a_batch_holds_one_ticket_however_large_and_no_more_than_fit():
    queue = filled(*(ticket(id, payload=b"x" * 100) for id in range(3)))
    assert len(queue.take(8, 50)) == 1
    assert len(queue.take(8, 250)) == 2


def test_a_ticket_that_has_to_run_alone_is_taken_alone_wherever_it_stands():
    lonely = [ticket(id) for id in range(4)]
    lonely[0].alone = lonely[2].alone = True
    queue = filled(*lonely)
    assert [ids(queue.take(8, 1000)) for _ in range(4)] == [[0], [1], [2], [3]]


def test_returned_tickets_are_first_again_even_beyond_the_bound():
    queue = FairQueue(4)
    for id, payer in enumerate("abab"):
        queue.push(ticket(id, payer))
    taken = queue.take(2, 1000)
    queue.push(ticket(4, "c"))
    queue.push(ticket(5, "c"))
    queue.push_back(taken)
    assert queue.is_full and ids(queue.drain()) == [0, 1, 4, 2, 3, 5]


def test_nobody_gives_up_a_place_where_that_is_not_enough():
    queue = FairQueue(2)
    for id in range(2):
        queue.push(ticket(id, "flood"))
    displaced = queue.displaced_by("other")
    assert displaced is not None and displaced.id == 1
    taken = queue.take(1, 1000)
    queue.push(ticket(2, "flood"))
    queue.push_back(taken)
    assert len(queue) == 3 and queue.displaced_by("other") is None


def test_tickets_of_one_owner_can_be_taken_out_and_the_others_keep_their_order():
    queue = filled(*(ticket(id, owner=owner) for id, owner in enumerate("xyxy")))
    assert ids(queue.drain("x")) == [0, 2]
    assert ids(queue.drain()) == [1, 3]


@given(
    st.lists(
        st.tuples(st.sampled_from(["push", "take", "remove", "put back"]), st.sampled_from("abc"), st.integers(0, 5))
    )
)
def test_a_queue_keeps_every_ticket_until_it_is_taken_once(steps):
    queue, turns = FairQueue(1000), Turns()
    waiting: list[Ticket] = []
    taken: list[Ticket] = []
    for id, (what, payer, number) in enumerate(steps):
        if what == "push":
            waiting.append(ticket(id, payer, priority=number % 3))
            queue.push(waiting[-1])
        elif what == "take":
            taken = queue.take(number, 1 << 30, turns)
            for one in taken:
                waiting.remove(one)
                turns.charge(one.payer, 0.1 * number)
        elif what == "put back":
            queue.push_back(taken)
            waiting += taken
            taken = []
        elif waiting:
            queue.remove(waiting.pop(number % len(waiting)))
        assert len(queue) == len(waiting)
        assert queue.num_bytes == sum(len(one.payload) for one in waiting)
        assert all(one.queued for one in waiting) and not any(one.queued for one in taken)
        assert not waiting or queue.first_payer in {one.payer for one in waiting}
    assert set(queue.drain()) == set(waiting)


def test_a_full_queue_takes_a_place_from_whoever_has_most_and_never_from_one_with_as_little():
    queue = filled(*(ticket(id, "flood") for id in range(5)), ticket(5, "b"))
    displaced = queue.displaced_by("c")
    assert displaced is not None and displaced.id == 4, "the newest of the payer with most"
    assert queue.displaced_by("flood") is None
    even = filled(ticket(0, "a"), ticket(1, "b"))
    assert even.displaced_by("a") is None and even.displaced_by("c") is None
