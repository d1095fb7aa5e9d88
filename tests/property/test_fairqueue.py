"""The fair queue keeps what SFQ(D) promises, for any weights, costs, arrivals and numbers of servers."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.policy.fairqueue import Clockwork, FairQueue, Task

KIND = "synthetic/generate"
weights = st.floats(min_value=0.5, max_value=10.0)
costs = st.floats(min_value=0.1, max_value=20.0)


def task(user: str, sequence: int, kind: str = KIND) -> Task:
    return Task(job_id=f"{user}-{sequence}", user_id=user, kind=kind, sequence=sequence)


class Servers:
    """D servers that always take the queue's next task; every user stays backlogged."""

    def __init__(self, user_weights: list[float], user_costs: list[list[float]], depth: int) -> None:
        self.queue = FairQueue(Clockwork())
        self.weights = user_weights
        self.costs = user_costs
        self.depth = depth
        self.served = [0.0] * len(user_weights)
        self.sequence = 0
        for number, weight in enumerate(user_weights):
            self.queue.reweigh(f"u{number}", weight)
            for _ in range(2):
                self._push(number)
        self.running: list[tuple[float, int, float]] = []  # (end, user, cost)
        self.now = 0.0
        self.count = [0] * len(user_weights)

    def _push(self, user: int) -> None:
        self.sequence += 1
        self.queue.push(task(f"u{user}", self.sequence))

    def step(self) -> None:
        while len(self.running) < self.depth:
            user = int(self.queue.pop(KIND, self._next_cost())[0].user_id[1:])
            self.running.append((self.now + self.chosen_cost, user, self.chosen_cost))
            self.count[user] += 1
            self._push(user)
        self.running.sort()
        self.now, user, cost = self.running.pop(0)
        self.served[user] += cost

    def _next_cost(self) -> float:
        """The cost of the task that pop() is about to return: costs belong to users."""
        heap = self.queue._heaps[KIND]
        self.queue.peek(KIND)
        user = int(heap[0][3][1:])
        series = self.costs[user]
        self.chosen_cost = series[self.count[user] % len(series)]
        return self.chosen_cost


@settings(max_examples=60, deadline=None)
@given(
    data=st.lists(st.tuples(weights, st.lists(costs, min_size=1, max_size=5)), min_size=2, max_size=6),
    depth=st.integers(1, 8),
)
def test_lag_between_backlogged_users_is_within_the_sfq_d_bound(
    data: list[tuple[float, list[float]]], depth: int
) -> None:
    user_weights = [weight for weight, _ in data]
    servers = Servers(user_weights, [series for _, series in data], depth)
    marks: list[list[float]] = []
    for _ in range(150):
        servers.step()
        marks.append(list(servers.served))
    worst = [max(series) / weight for weight, series in data]
    for start in range(0, len(marks), 30):
        for end in range(start, len(marks), 17):
            gained = [(marks[end][u] - marks[start][u]) / user_weights[u] for u in range(len(data))]
            for f in range(len(data)):
                for g in range(f):
                    assert abs(gained[f] - gained[g]) <= (depth + 1) * (worst[f] + worst[g]) + 1e-6


@given(weight=weights, backlog=st.integers(1, 200))
def test_a_new_user_waits_for_no_more_than_one_round(weight: float, backlog: int) -> None:
    queue = FairQueue(Clockwork())
    for number in range(backlog):
        queue.push(task("flood", number))
    for _ in range(backlog // 2):
        queue.pop(KIND, 1.0)
    queue.reweigh("late", weight)
    queue.push(task("late", 10_000))
    users = [queue.pop(KIND, 1.0)[0].user_id for _ in range(min(2, len(queue)))]
    assert "late" in users


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=60), st.data())
def test_a_rebuilt_queue_gives_the_same_order(users: list[str], data: st.DataObject) -> None:
    live = FairQueue(Clockwork())
    waiting: dict[str, Task] = {}
    for sequence, user in enumerate(users):
        kind = data.draw(st.sampled_from([KIND, "synthetic/texture"]))
        new = task(user, sequence, kind)
        live.push(new)
        waiting[new.job_id] = new
        action = data.draw(st.sampled_from(["pop", "remove", "settle", "none"]))
        if action == "pop" and live.peek(kind) is not None:
            popped, _ = live.pop(kind, data.draw(costs))
            del waiting[popped.job_id]
        elif action == "remove" and waiting:
            gone = data.draw(st.sampled_from(sorted(waiting)))
            assert live.remove(gone)
            del waiting[gone]
        elif action == "settle":
            live.settle(user, 1.0, data.draw(costs))
    copy = msgspec.msgpack.decode(msgspec.msgpack.encode(live.clockwork), type=Clockwork)
    rebuilt = FairQueue(copy, waiting.values())
    assert len(rebuilt) == len(live) == len(waiting)
    for kind in (KIND, "synthetic/texture"):
        while live.peek(kind) is not None:
            assert rebuilt.peek(kind) == live.peek(kind)
            assert rebuilt.pop(kind, 1.5) == live.pop(kind, 1.5)
        assert rebuilt.peek(kind) is None


def test_weight_changes_act_on_the_backlog() -> None:
    queue = FairQueue(Clockwork())
    for sequence in range(200):
        queue.push(task("a", sequence))
        queue.push(task("b", sequence))
    queue.reweigh("a", 3.0)
    users = [queue.pop(KIND, 1.0)[0].user_id for _ in range(40)]
    assert 29 <= users.count("a") <= 31


def test_a_wrong_estimate_gains_nothing() -> None:
    queue = FairQueue(Clockwork())
    for sequence in range(400):
        queue.push(task("liar", sequence))
        queue.push(task("honest", sequence))
    served = {"liar": 0.0, "honest": 0.0}
    for _ in range(200):
        head, charged = queue.pop(KIND, 1.0)
        measured = 10.0 if head.user_id == "liar" else 1.0
        queue.settle(head.user_id, charged, measured)
        served[head.user_id] += measured
    assert abs(served["liar"] - served["honest"]) <= 20.0
