"""Two domains of one installation: each job goes to its pipeline's domain, tenants to both, loads are told by each."""

import uuid
from collections.abc import Callable

from schemas.codec import Codec, Record
from schemas.topics import COMMANDS, LOAD, TENANTS, catalogue, requests_topic
from streams.kafka.admin import create_topics
from streams.kafka.settings import KafkaSettings
from tests.integration.streams.played_slots import Slots, as_bytes, inbox
from tests.support.kafka import produce, read_topic
from tests.support.roles import Role, wait_until

WORKFLOW = "text-to-3d"


def request(user_id: str, pipeline_id: str) -> Record:
    return {
        "request_id": str(uuid.uuid4()), "job_id": str(uuid.uuid4()), "user_id": user_id, "job_type": "model",
        "created_at": 1, "workflow": WORKFLOW, "pipeline_id": pipeline_id, "prompt": "a chair", "seed": 1,
        "quality": "standard", "formats": ["glb"], "parameters": {},
    }  # fmt: skip


def test_each_job_goes_to_its_pipelines_domain(
    settings: KafkaSettings, codec: Codec, start_role: Callable[..., Role]
) -> None:
    lab = KafkaSettings(bootstrap=settings.bootstrap, domain=f"{settings.domain}-lab")
    create_topics(lab, catalogue(domains=(lab.domain,)))
    env = {
        "MESHYARD_DOMAINS": f"{settings.domain},{lab.domain}",
        "MESHYARD_DOMAIN_OF": f"synthetic={lab.domain}",
    }
    start_role("streams", "all", **env)
    start_role("streams", "scheduler", "--domain", lab.domain, **env)
    slots = Slots(lab, codec, count=1)
    user = f"user-{settings.domain}"
    tenant = {
        "user_id": user, "tier": "pro", "weight": 3.0, "requests_per_minute": 600.0, "burst_requests": 10,
        "scopes": ["jobs", "synthetic"], "keys": [], "updated_at": 1,
    }  # fmt: skip
    produce(settings.bootstrap, TENANTS, [(user, codec.encode("tenant", tenant))])

    def mine(domain: KafkaSettings, kind: str) -> list[Record]:
        found = [e for _, record in inbox(domain, codec) for e in record["entries"] if e["kind"] == kind]
        bodies = [entry[name] for entry in found for name in ("ready", "tenant", "cancel") if entry.get(name)]
        return [body for body in bodies if body["user_id"] == user]

    both = (settings, lab)
    wait_until(lambda: all(mine(domain, "tenant_changed") for domain in both), "both schedulers know the tenant", 40)
    chair, load = request(user, "assembly"), request(user, "synthetic")
    values = [(user, codec.encode("job_requested", asked)) for asked in (chair, load)]
    produce(settings.bootstrap, requests_topic(WORKFLOW), values)
    wait_until(lambda: slots.work(None) == 1, "the lab's slot got its job", 20)
    assert slots.seen[0][0]["job_id"] == load["job_id"]
    assert slots.seen[0][0]["tier"] == "pro"
    wait_until(lambda: bool(mine(settings, "stage_ready")), "the other job reached the first domain", 20)
    assert [body["job_id"] for body in mine(settings, "stage_ready")] == [chair["job_id"]]
    assert [body["job_id"] for body in mine(lab, "stage_ready")] == [load["job_id"]]

    cancel = {"command_id": str(uuid.uuid4()), "kind": "cancel", "job_id": chair["job_id"], "user_id": user,
              "reason": "", "issued_at": 1}  # fmt: skip
    produce(settings.bootstrap, COMMANDS, [(user, codec.encode("command", cancel))])
    wait_until(lambda: bool(mine(settings, "cancel")), "the cancel reached the job's domain", 20)

    def as_told() -> dict[str, Record]:
        """Each domain's newest load. The first one may take in requests that other tests left behind."""
        loads = [codec.decode(as_bytes(m.value())) for m in read_topic(settings.bootstrap, LOAD)]
        return {load["domain"]: load for load in loads}

    def told() -> bool:
        first, second = (as_told().get(domain.domain) for domain in both)
        if first is None or second is None:
            return False
        waiting = sum(entry["queued_tasks"] for entry in first["backlog"] if entry["user_id"] == user)
        return bool(waiting == 0 and second["running_tasks"] == 1)

    wait_until(told, "both domains tell their load", 20)
    slots.close()
