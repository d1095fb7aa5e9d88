"""When the read model's reader turns to reading in bulk, and back."""

from gateway.feeds import BULK_RATE, PROMPT_RATE, WINDOW_SECONDS, Flow


def windows(*rates: float) -> list[bool]:
    """`bulk` after windows with these records a second."""
    flow, now, found = Flow(0.0), 0.0, []
    for rate in rates:
        for _ in range(10):
            now += WINDOW_SECONDS / 9.99
            flow.turned(round(rate * WINDOW_SECONDS / 10), now)
        found.append(flow.bulk)
    return found


def test_it_turns_when_many_come_and_back_when_few_do() -> None:
    between = (BULK_RATE + PROMPT_RATE) / 2
    assert windows(0, between, BULK_RATE * 2, between, between, PROMPT_RATE / 2, between) == [
        False,
        False,
        True,
        True,
        True,
        False,
        False,
    ]


def test_a_turn_is_told_once() -> None:
    flow = Flow(0.0)
    assert not flow.turned(10_000, WINDOW_SECONDS / 2)
    assert flow.turned(0, WINDOW_SECONDS)
    assert not flow.turned(10_000, 2 * WINDOW_SECONDS)
    assert flow.turned(0, 3 * WINDOW_SECONDS)
