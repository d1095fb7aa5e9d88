"""The submitter without a gateway: a process of its own that writes requests to Kafka, as an upstream product does."""

import signal
import time
import uuid
from multiprocessing.connection import Connection
from typing import Any, Final

from confluent_kafka import KafkaError, Message, Producer

from gateway.bench.submitter import NOOP_PARAMETERS, PROMPT, Load, Submitted
from schemas.codec import Codec
from schemas.pipelines import TEXT_TO_3D
from schemas.topics import requests_topic
from streams.kafka.producer import producer_config
from streams.kafka.settings import KafkaSettings

ACK_SECONDS: Final = 60.0
_FULL_SECONDS: Final = 0.01


def submit_directly(kafka: KafkaSettings, user_ids: tuple[str, ...], pipe: Connection) -> None:
    """The process: says what it Submitted for each Load, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who started it ends it
    submitter = DirectSubmitter(kafka, user_ids)
    try:
        while True:
            pipe.send(submitter.run(pipe.recv()))
    except (EOFError, BrokenPipeError):
        pass


class DirectSubmitter:
    """Sends phases with one producer; a record is sent at once, those of a flood in the batches that form by it."""

    def __init__(self, kafka: KafkaSettings, user_ids: tuple[str, ...]) -> None:
        self._producer = Producer(producer_config(kafka))
        self._codec = Codec()
        self._topic = requests_topic(TEXT_TO_3D)
        self._user_ids = user_ids
        self._failures: list[KafkaError] = []

    def run(self, load: Load) -> Submitted:
        """One phase, until Kafka has acknowledged all of it."""
        began = time.monotonic_ns()
        intended: dict[str, int] = {}
        self._failures.clear()
        for number in range(load.jobs):
            at = time.monotonic_ns()
            if load.rate_per_second is not None:
                at = began + int(number * 1e9 / load.rate_per_second)
                self._producer.poll(max(0.0, (at - time.monotonic_ns()) / 1e9))
                while (rest := at - time.monotonic_ns()) > 0:  # an acknowledgement ends poll early
                    time.sleep(rest / 1e9)
            request = self._request(number)
            intended[request["job_id"]] = at
            self._produce(request)
        missing = self._producer.flush(ACK_SECONDS)
        problem = f"Kafka did not take {missing} requests" if missing else None
        if self._failures:
            problem = str(self._failures[0])
        seconds = (time.monotonic_ns() - began) / 1e9
        return Submitted(began=began, intended=intended, seconds=seconds, repeats=0, problem=problem)

    def _produce(self, request: dict[str, Any]) -> None:
        value = self._codec.encode("job_requested", request)
        while True:
            try:
                self._producer.produce(self._topic, value, request["user_id"], on_delivery=self._delivered)
                self._producer.poll(0)
                return
            except BufferError:
                self._producer.poll(_FULL_SECONDS)

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._failures.append(error)

    def _request(self, number: int) -> dict[str, Any]:
        job_id = str(uuid.uuid4())
        return {
            "request_id": job_id,
            "job_id": job_id,
            "user_id": self._user_ids[number % len(self._user_ids)],
            "job_type": "model",
            "created_at": time.time_ns() // 1_000_000,
            "workflow": TEXT_TO_3D,
            "pipeline_id": "synthetic",
            "prompt": PROMPT,
            "seed": number,
            "quality": "standard",
            "formats": ["glb"],
            "parameters": NOOP_PARAMETERS,
        }
