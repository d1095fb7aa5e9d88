"""Routing in the scheduler: users stay on their arm, and a canary that fails is taken back without anybody's help."""

from typing import Any

from streams.policy.decisions import Dispatch, Platform, Route
from streams.policy.routing import shares
from streams.policy.scheduler import Scheduler
from tests.support.world import SERVES, ready, routing

SLOTS = 4
GUARD = {"min_tasks": 10, "failure_margin": 0.2, "p95_margin": 0.5}


class Domain:
    """A scheduler, and slots that end what they are given at once. failing: model version whose generate stage fails;
    seconds: of a run, by version."""

    def __init__(self, failing: str | None = None, seconds: dict[str, float] | None = None) -> None:
        self.scheduler = Scheduler()
        self.failing = failing
        self.seconds = seconds or {}
        self.now = 1_000
        self.offset = 0
        self.arms: dict[str, list[str]] = {}  # user -> versions that served the generate stage
        self.routes: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        for slot in range(SLOTS):
            change = {
                "slot": slot, "epoch": 1, "pool": "main", "resource_class": "cpu", "serves": SERVES, "versions": [],
                "capacity": 1,
            }  # fmt: skip
            self.feed({"kind": "slot_joined", "slot": change})

    def feed(self, entry: dict[str, Any]) -> None:
        self.now += 10
        decisions = self.scheduler.apply(self.offset, {"entries": [{"at": self.now, **entry}]})
        self.offset += 1
        for decision in decisions:
            if isinstance(decision, Route):
                self.routes.append(decision.rule)
            elif isinstance(decision, Platform) and decision.event["kind"] == "routing":
                self.events.append(decision.event)
            elif isinstance(decision, Dispatch):
                self.end(decision)

    def end(self, dispatch: Dispatch) -> None:
        item = dispatch.item
        first = item["stage"] == "generate"
        if first:
            self.arms.setdefault(item["user_id"], []).append(item["model_version"])
        fails = first and item["model_version"] == self.failing
        settled = {
            "job_id": item["job_id"], "stage": item["stage"], "attempt": item["attempt"], "slot": dispatch.slot,
            "epoch": dispatch.epoch, "outcome": "failed" if fails else "succeeded",
            "error_class": "permanent" if fails else None, "gpu_seconds": 0.1, "artefacts": [],
            "retry_after_seconds": None, "run_seconds": self.seconds.get(item["model_version"], 0.1),
        }  # fmt: skip
        self.feed({"kind": "stage_settled", "settled": settled})

    def submit(self, users: int, round_: int, **given: Any) -> None:
        for user in range(users):
            job_id = f"job-{round_}-{user}"
            self.feed({"kind": "stage_ready", "ready": ready(job_id, f"user-{user}", **given)})


def test_users_stay_on_their_arm_and_shares_are_kept() -> None:
    domain = Domain()
    domain.feed(routing(1, {"1": 80.0, "2": 20.0}))
    for round_ in range(3):
        domain.submit(200, round_)
    assert all(len(set(versions)) == 1 for versions in domain.arms.values())
    served = sum(versions[0] == "2" for versions in domain.arms.values()) / len(domain.arms)
    assert 0.1 < served < 0.3


def test_a_canary_that_fails_is_taken_back() -> None:
    domain = Domain(failing="2")
    domain.feed(routing(1, {"1": 50.0, "2": 50.0}, guard=GUARD))
    domain.submit(60, 0)
    [rule] = domain.routes
    assert shares(rule) == "1=100 2=0"
    assert (rule["revision"], rule["changed_by"]) == (2, "guard")
    assert rule["reason"].startswith("failure rate 1.000 of")
    assert [event["detail"]["after"] for event in domain.events] == ["1=100 2=0"]  # the operator told the first
    failed = sum(versions == ["2"] for versions in domain.arms.values())
    assert failed < 20  # it did not take all sixty
    domain.arms.clear()
    domain.submit(60, 1)
    assert {version for versions in domain.arms.values() for version in versions} == {"1"}


def test_a_canary_that_is_slow_is_taken_back() -> None:
    domain = Domain(seconds={"1": 1.0, "2": 2.0})
    domain.feed(routing(1, {"1": 50.0, "2": 50.0}, guard=GUARD))
    for round_ in range(3):
        domain.submit(60, round_)
    [rule] = domain.routes
    assert rule["reason"].startswith("p95 ")


def test_a_version_that_a_user_names_is_not_routed_and_not_judged() -> None:
    domain = Domain(failing="2")
    domain.feed(routing(1, {"1": 50.0, "2": 50.0}, guard=GUARD))
    for round_ in range(3):
        domain.submit(60, round_, model_version="2")
    assert {version for versions in domain.arms.values() for version in versions} == {"2"}
    assert domain.routes == []


def test_an_older_rule_changes_nothing() -> None:
    domain = Domain()
    domain.feed(routing(2, {"1": 100.0}))
    domain.feed(routing(1, {"2": 100.0}))
    domain.submit(5, 0)
    assert {version for versions in domain.arms.values() for version in versions} == {"1"}
