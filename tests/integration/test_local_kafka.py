"""The embedded broker as its users meet it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from streams.local.broker import Broker
from streams.local.errors import BrokerRunningError, DiskFullError, PortTakenError, StartFailedError
from streams.local.files import read_json
from streams.local.process import spawn
from streams.local.settings import LocalBrokerSettings
from tests.support.kafka import KafkaTopics, produce, read_topic

RECORDS = [(f"key-{n}", b"%d" % n) for n in range(100)]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A node that this test may kill."""
    node = Broker(LocalBrokerSettings.from_env(tmp_path / "kafka"))
    yield node
    node.stop()


def values(bootstrap: str, topic: str) -> set[bytes]:
    return {record.value() or b"" for record in read_topic(bootstrap, topic)}


def test_records_written_are_read_back(kafka_topics: KafkaTopics) -> None:
    topic = kafka_topics.create("records", partitions=3)
    produce(kafka_topics.bootstrap, topic, RECORDS)
    assert values(kafka_topics.bootstrap, topic) == {value for _, value in RECORDS}


def test_an_aborted_transaction_is_not_read_and_a_fenced_producer_cannot_commit(kafka_topics: KafkaTopics) -> None:
    topic = kafka_topics.create("transactions")
    config = {"bootstrap.servers": kafka_topics.bootstrap, "transactional.id": kafka_topics.group("slot")}
    old, new = Producer(config), Producer(config)
    old.init_transactions(30)
    old.begin_transaction()
    old.produce(topic, b"of the old owner")
    old.flush(30)
    new.init_transactions(30)
    new.begin_transaction()
    new.produce(topic, b"of the new owner")
    new.commit_transaction(30)
    with pytest.raises(KafkaException, match=r"(?i)fenced|epoch"):
        old.commit_transaction(30)
    assert values(kafka_topics.bootstrap, topic) == {b"of the new owner"}


def test_a_topic_is_never_made_by_a_typing_error(kafka_topics: KafkaTopics) -> None:
    consumer = Consumer({"bootstrap.servers": kafka_topics.bootstrap, "group.id": kafka_topics.group()})
    name = f"{kafka_topics.prefix}mistyped"
    assert str(consumer.list_topics(name, 10).topics[name].error)
    consumer.close()
    assert name not in kafka_topics.admin.list_topics(timeout=10).topics


def test_data_port_and_identity_are_kept_over_orderly_stops_and_kill_9(broker: Broker) -> None:
    broker.start(with_parent=True)
    broker.wait_ready()
    bootstrap, cluster = broker.bootstrap, cluster_id(broker.bootstrap)
    KafkaTopics(bootstrap, "").create_named("kept")
    produce(bootstrap, "kept", RECORDS[:50])
    broker.stop()

    broker.start(with_parent=True)
    broker.wait_ready()
    assert (broker.bootstrap, cluster_id(bootstrap)) == (bootstrap, cluster)
    produce(bootstrap, "kept", RECORDS[50:])
    assert broker.pid is not None
    os.kill(broker.pid, signal.SIGKILL)
    broker.stop()

    broker.start(with_parent=True)
    broker.wait_ready()
    assert (broker.bootstrap, cluster_id(bootstrap)) == (bootstrap, cluster)
    assert values(bootstrap, "kept") == {value for _, value in RECORDS}


def cluster_id(bootstrap: str) -> str:
    return str(AdminClient({"bootstrap.servers": bootstrap}).list_topics(timeout=10).cluster_id)


def test_two_brokers_on_one_directory_are_refused(broker: Broker) -> None:
    broker.start(with_parent=True)
    with pytest.raises(BrokerRunningError, match=f"process {broker.pid} runs a broker") as caught:
        Broker(broker.settings).start()
    assert caught.value.bootstrap == broker.bootstrap


def test_an_asked_port_that_is_taken_is_named_with_its_holder(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PortTakenError, match=rf"port {port} is taken by .*pid {os.getpid()}"):
            Broker(LocalBrokerSettings.from_env(tmp_path, port)).start()


def test_a_kept_port_that_is_taken_is_replaced(broker: Broker) -> None:
    broker.start(with_parent=True)
    broker.wait_ready()
    port = broker.port
    broker.stop()
    with socket.create_server(("127.0.0.1", port)):
        with pytest.raises(PortTakenError):  # clients of this node look for it there
            broker.start(with_parent=True)
        elsewhere = Broker(broker.settings)
        elsewhere.start(with_parent=True)
        elsewhere.wait_ready()
        elsewhere.stop()
        assert elsewhere.port != port


def test_a_full_disk_is_told_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = Broker(LocalBrokerSettings.from_env(tmp_path / "kafka"))
    node.prepare()
    monkeypatch.setattr("streams.local.broker.NEEDED_BYTES", 1 << 60)
    with pytest.raises(DiskFullError, match="free some space"):
        node.start()


def test_a_node_that_cannot_start_tells_why(broker: Broker) -> None:
    broker.start(with_parent=True)
    broker.wait_ready()
    broker.stop()
    meta = broker.settings.data_dir / "log" / "meta.properties"
    meta.write_text(meta.read_text().replace("node.id=1", "node.id=7"))
    broker.start(with_parent=True)
    with pytest.raises(StartFailedError, match="ended before it answered") as caught:
        broker.wait_ready()
    assert caught.value.tail


def test_foreground_role_serves_and_ends_with_its_signal(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "streams.local", "--data-dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as role:
        assert role.stdout is not None
        line = role.stdout.readline()
        while line and not line.startswith("Kafka answers at "):
            line = role.stdout.readline()
        bootstrap = line.split()[-1]
        assert cluster_id(bootstrap)
        node = psutil.Process(int(str(read_json(tmp_path / "broker.json")["pid"])))
        role.send_signal(signal.SIGTERM)
        assert role.wait(60) == 0
        assert not node.is_running()


def test_a_killed_parent_takes_its_broker_with_it_and_the_next_start_works(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "streams.local", "--data-dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as role:
        assert role.stdout is not None
        while not role.stdout.readline().startswith("Kafka answers at "):
            assert role.poll() is None
        node = psutil.Process(int(str(read_json(tmp_path / "broker.json")["pid"])))
        role.kill()
    node.wait(10)
    broker = Broker(LocalBrokerSettings.from_env(tmp_path))
    try:
        broker.start(with_parent=True)
        broker.wait_ready()
    finally:
        broker.stop()


def test_a_child_whose_parent_was_gone_before_it_began_does_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    launcher = str(Path(sys.modules["streams.local.process"].__file__ or "").with_name("launcher.py"))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    done = subprocess.run([sys.executable, "-I", "-S", launcher, str(gone.pid), "/bin/touch", str(marker)])
    assert done.returncode == 1
    assert not marker.exists()


def test_spawned_children_leave_the_terminals_group(tmp_path: Path) -> None:
    child = spawn(["/bin/sleep", "60"], environment={}, log_file=tmp_path / "log", with_parent=True)
    try:
        deadline = time.monotonic() + 10
        while psutil.Process(child.pid).name() != "sleep":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert os.getsid(child.pid) == child.pid  # Ctrl-C reaches the supervisor only, which stops in order
    finally:
        child.kill()
        child.wait()
