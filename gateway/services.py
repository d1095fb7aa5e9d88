"""The parts of one gateway process, made once and handed to every route."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Final, ParamSpec, TypeVar

import structlog
from confluent_kafka import KafkaException

from gateway.answers import Answers
from gateway.auth import TenantDirectory
from gateway.feeds import Feed, FeedSettings
from gateway.fold import JobFold, fold
from gateway.hub import Hub
from gateway.jobs import JobJson, Standing, job_json, request_row
from gateway.live import LiveBatch, LiveReader
from gateway.load import FRESH_SECONDS, Loads
from gateway.problems import not_found, unavailable
from gateway.readmodel import ReadModel
from gateway.settings import GatewaySettings
from gateway.tables import STANDARD, JobKey, StoredJob
from schemas.codec import Codec
from schemas.jobs import JobState
from schemas.registry import registry_from_url
from streams.clock import Clock, SystemClock
from streams.kafka.producer import AsyncProducer, Headers
from streams.objects import ObjectStore

log = structlog.get_logger(__name__)

READ_MODEL_FILE: Final = "gateway-readmodel.sqlite3"
# A record that the brokers do not take within this time: the user is told, instead of waiting on.
SEND_SECONDS: Final = 5.0
# Records that the gateway encodes or decodes; with an outside registry their ids are looked up at the start.
_RECORDS: Final = (
    "job_requested",
    "command",
    "job_event",
    "job_progress",
    "admission_answers",
    "tenant",
    "domain_load",
)

_DAY_MS: Final = 24 * 3_600_000

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Services:
    """Everything behind the routes; a FeedListener and LiveListener. start() and stop() are the lifespan's."""

    def __init__(self, settings: GatewaySettings, clock: Clock | None = None) -> None:
        self.settings = settings
        self.clock: Clock = clock or SystemClock()
        self.registry = registry_from_url(settings.kafka.registry_url)
        self.codec = Codec(self.registry)
        self.tenants = TenantDirectory()
        self.answers = Answers(settings.answer_timeout_ms / 1000)
        self.loads = Loads(self.clock.now_ms(), settings.kafka.every_domain, settings.domain_of)
        self.hub = Hub()
        self.read_model = ReadModel(settings.data_dir / READ_MODEL_FILE, self.codec)
        self.objects = ObjectStore(settings.objects_url)
        reading = FeedSettings(
            kafka=settings.kafka,
            name=settings.gateway_id,
            server_key=settings.server_key,
            keep_ms=settings.keep_days * _DAY_MS,
            now_ms=self.clock.now_ms,
        )
        self.feed = Feed(reading, self.codec, self.registry, self.read_model, self)
        self.live = LiveReader(settings.kafka, settings.gateway_id, self.codec, self)
        self.caught_up = False
        self.failed: Exception | None = None
        self.on_fatal: Callable[[], None] = lambda: None
        self._producer: AsyncProducer | None = None
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="read-model")

    async def start(self) -> None:
        """Starts feed and producer; returns before the broker has answered."""
        loop = asyncio.get_running_loop()
        if self.settings.kafka.registry_url is not None:
            await asyncio.to_thread(lambda: [self.registry.latest(name) for name in _RECORDS])
        self._producer = await AsyncProducer(self.settings.kafka).__aenter__()
        self.feed.start(loop)
        self.live.start(loop)

    async def stop(self) -> None:
        """Flushes what was sent, ends the feed, closes the read model."""
        self.hub.drain()
        if self._producer is not None:
            await self._producer.__aexit__(None, None, None)
        await asyncio.gather(self.feed.stop(), self.live.stop())
        self._readers.shutdown()
        self.read_model.close()

    # What the readers tell (FeedListener, LiveListener).

    def on_live(self, batch: LiveBatch) -> None:
        """See LiveListener."""
        self.answers.settle(batch.answers)
        if batch.progress:
            self.hub.put_progress(batch.progress)
        for load in batch.loads:
            self.loads.apply(load)
        for user_id, tenant in batch.tenants:
            self.tenants.apply(user_id, tenant)

    def on_changed(self, jobs: dict[JobKey, bool]) -> None:
        """See FeedListener."""
        for job, has_events in jobs.items():
            if has_events:
                self.hub.forget(job)
        self.hub.changed(jobs)

    def on_tenants_loaded(self) -> None:
        """See LiveListener."""
        self.tenants.loaded = True

    def on_caught_up(self) -> None:
        """See FeedListener."""
        self.caught_up = True

    def on_failed(self, error: Exception) -> None:
        """See FeedListener."""
        self.failed = error
        self.on_fatal()

    # What the routes ask.

    async def read(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Runs a question to the read model outside the loop. Raises Problem `starting` before it is open."""
        if not self.feed.connected:
            raise unavailable("starting", "the read model waits for Kafka")
        return await asyncio.get_running_loop().run_in_executor(self._readers, lambda: call(*args, **kwargs))

    async def send(self, topic: str, key: str, value: bytes, headers: Headers) -> None:
        """Stores a record in Kafka. Raises Problem broker_unavailable; the record may arrive all the same."""
        assert self._producer is not None, "start() comes first"
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await self._producer.send(topic, key, value, headers)
        except (KafkaException, TimeoutError) as error:
            log.error("send failed", topic=topic, error=type(error).__name__)
            raise unavailable("broker_unavailable", "Kafka did not confirm the request in time") from None

    def ensure_accepting(self) -> None:
        """Raises Problem 503 while no request could be answered."""
        if self.hub.draining:
            raise unavailable("starting", "this gateway stops; ask again")
        if not self.answers.lag.admit(asyncio.get_running_loop().time()):
            raise unavailable("overloaded", "admission does not answer in time", retry_after_seconds=5)

    def ensure_scheduled(self, pipeline_id: str) -> None:
        """Raises Problem 503 while nobody schedules a pipeline's jobs."""
        if self.loads.of(pipeline_id).silent(self.clock.now_ms()):
            raise unavailable("overloaded", "the scheduler has been silent for too long", retry_after_seconds=5)

    def missing(self) -> list[dict[str, str]]:
        """What stands between this gateway and readiness, apart from the broker's own state; empty when ready."""
        found = []
        if self.failed is not None:
            found.append({"name": "feed", "detail": "reading from Kafka has failed; the process is ending"})
        if self.hub.draining:
            found.append({"name": "draining", "detail": "the process is stopping"})
        if not (self.feed.connected and self.live.connected):
            found.append({"name": "broker", "detail": "Kafka does not answer or its topics are missing"})
        elif not (self.caught_up and self.tenants.loaded):
            found.append({"name": "read_model", "detail": "events up to the start are still being read"})
        now_ms = self.clock.now_ms()
        for domain, load in self.loads.domains.items():
            age, of = load.age_seconds(now_ms), "" if len(self.loads.domains) == 1 else f" of {domain}"
            if not load.known():
                found.append({"name": "scheduler", "detail": f"control.load{of} has said nothing since the start"})
            elif age > FRESH_SECONDS:
                detail = f"control.load{of} is {age:.0f} s old; the limit is {FRESH_SECONDS:.0f} s"
                found.append({"name": "scheduler", "detail": detail})
        if self.answers.lag.lagging(asyncio.get_running_loop().time()):
            found.append({"name": "admission", "detail": "requests get no answers in time"})
        return found

    async def stored_job(self, job: JobKey, *, with_place: bool = False) -> StoredJob:
        """A user's job, also one that was stored a moment ago. Raises Problem not_found."""
        recent = self.hub.recent(job)  # before the read: it is forgotten once the read model has more to say
        stored = await self.read(self.read_model.job, *job, with_place=with_place)
        if recent is None:
            if stored is None:
                raise not_found()
            return stored
        if stored is None:
            stored = StoredJob(row=request_row(recent.request), events=())
        return replace(stored, accepted=recent.accepted, held_until=recent.held_until)

    async def job(self, job: JobKey) -> JobJson:
        """A user's job with progress and place in the queue as they are now. Raises Problem not_found."""
        stored = await self.stored_job(job, with_place=True)
        return job_json(stored.row, self.fold(stored), self.standing(stored, with_place=True))

    def standing(self, stored: StoredJob, *, with_place: bool = False) -> Standing:
        """How a job stands now; with_place: it was read with its place among its user's jobs."""
        row = stored.row
        job = (row.user_id, row.job_id)
        if row.state != JobState.QUEUED or not with_place:
            return Standing(progress=self.hub.progress(job), priority=stored.priority, paused=stored.paused)
        lane, load = row.lane or STANDARD, self.loads.of(row.pipeline_id)
        return Standing(
            priority=stored.priority,
            paused=stored.paused,
            queue_position=load.queue_position(row.user_id, lane, stored.queued_before),
            # A paused job starts when its user says so.
            eta=None if stored.paused else load.predicted(row.user_id, lane, stored.queued_before),
            now_ms=self.clock.now_ms(),
        )

    def fold(self, stored: StoredJob) -> JobFold:
        """The job's state; `queued` or `held` as soon as admission has said so to this gateway."""
        folded = fold(stored.events)
        if folded.state is JobState.SUBMITTED and stored.accepted:
            return accepted_fold(stored.held_until)
        return folded


def accepted_fold(held_until: int | None) -> JobFold:
    """A job of which nothing but admission's answer is known."""
    if held_until is not None:
        return JobFold(state=JobState.HELD, held_until=held_until)
    return JobFold(state=JobState.QUEUED)


def services_of(app_state: Any) -> Services:
    """The services of the application that a request came to."""
    found = app_state.services
    assert isinstance(found, Services)
    return found
