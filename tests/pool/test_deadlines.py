"""Who is due, in order, although nearly every entry is of a call that has ended long ago."""

from hypothesis import given
from hypothesis import strategies as st

from serai_gpu_pool.core import Ticket
from serai_gpu_pool.scheduling.deadlines import Deadlines


def ticket(id: int, deadline: float) -> Ticket:
    return Ticket(id, "m", "p", deadline, b"")


def end(deadlines: Deadlines, one: Ticket) -> None:
    one.done = True
    deadlines.ended(one)


def test_deadlines_come_in_order_and_forget_what_has_ended():
    deadlines = Deadlines()
    tickets = [ticket(id, float(id)) for id in range(5000)]
    for one in reversed(tickets):
        deadlines.add(one)
    for one in tickets[:4990]:
        end(deadlines, one)
    assert deadlines.next() == 4990.0
    assert [one.id for one in deadlines.due(4992.0)] == [4990, 4991, 4992]
    deadlines.add(ticket(9000, 9000.0))
    assert deadlines.num_live == 11


def test_a_call_that_was_never_watched_does_not_count_when_it_ends():
    deadlines = Deadlines()
    deadlines.add(ticket(1, 1.0))
    end(deadlines, ticket(2, 2.0))
    assert deadlines.num_live == 1


def test_what_has_ended_takes_no_memory_for_long():
    deadlines = Deadlines()
    for id in range(20_000):
        one = ticket(id, 100.0)
        deadlines.add(one)
        end(deadlines, one)
    assert len(deadlines._heap) < 3000 and deadlines.next() is None


@given(st.lists(st.tuples(st.sampled_from(["add", "end", "wait"]), st.integers(0, 20))))
def test_everybody_who_has_not_ended_is_due_once_and_in_time(steps):
    deadlines, now = Deadlines(), 0.0
    waiting: list[Ticket] = []
    for id, (what, number) in enumerate(steps):
        if what == "add":
            waiting.append(ticket(id, now + number))
            deadlines.add(waiting[-1])
        elif what == "end" and waiting:
            end(deadlines, waiting.pop(number % len(waiting)))
        elif what == "wait":
            now += number
            due = deadlines.due(now)
            assert set(due) == {one for one in waiting if one.deadline <= now}
            assert [one.deadline for one in due] == sorted(one.deadline for one in due)
            waiting = [one for one in waiting if one not in due]
            for one in due:
                end(deadlines, one)
        assert deadlines.num_live == len(waiting)
        assert deadlines.next() == min((one.deadline for one in waiting), default=None)
