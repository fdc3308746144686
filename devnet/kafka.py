"""`python -m devnet.kafka`: Apache Kafka on this machine, one broker or several, gone with whoever starts it.

Brokers run from Maven's artifacts, copied once into `build/kafka`; each is a controller too (KRaft), so that
nothing else has to run. Data lies in a temporary directory unless one is named. The URL that is printed, on a
line of its own, is what `nektar demo --bus` and `bus:` in nektar.yaml take.
"""

from __future__ import annotations

import argparse
import fcntl
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from devnet.anvil import free_port
from devnet.chain import DevnetError
from nektar.errors import NektarError
from nektar.role import ends_with_parent, stop_on_signals

POM = Path(__file__).with_name("kafka.pom.xml")
BUILD = Path(__file__).parent.parent / "build" / "kafka"
JAVA = 17

# A broker is there after some 5 s of processor time, on a machine that is busy with everything else.
START_SECONDS = 120.0
STOP_SECONDS = 20.0
_ATTEMPTS = 3

# Soon there, and small: the compiler's last stage costs more than it gives in minutes.
_JVM = ("-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")

_LOGGING = """\
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %c{1}: %m%n
"""

# Groups and transactions as quick as the bus asks for (`nektar/bus/kafka.py`); fewer partitions of Kafka's
# own topics and smaller indexes than on a server, since each costs files and time at every start.
_SETTINGS = """\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
default.replication.factor={replicas}
min.insync.replicas={in_sync}
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=8
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=8
transaction.abort.timed.out.transaction.cleanup.interval.ms=500
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=100
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
log.index.size.max.bytes=1048576
log.cleaner.dedupe.buffer.size=4194304
"""


class Broker:
    """One node of a cluster: started, killed, and started again on the same port and data."""

    def __init__(self, directory: Path, libs: Path, port: int, controller: int) -> None:
        self.directory = directory
        self.port = port
        self.controller = controller
        self._libs = libs
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; whether it answers is another question. It dies with the thread that calls this, not
        only with the process: call it from one that stays."""
        with (self.directory / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *_java(self._libs, self.directory),
                    "kafka.Kafka",
                    str(self.directory / "server.properties"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us, who end it ourselves
                preexec_fn=ends_with_parent(signal.SIGKILL),
            )

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL, as a power cut would be to its process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """SIGTERM: it hands its partitions over and writes its files out."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()

    def freeze(self) -> None:
        """SIGSTOP: it keeps its connections, takes new ones, and answers nobody, until `thaw`."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def last_words(self) -> str:
        text = (self.directory / "broker.log").read_text("utf-8", "replace").strip()
        return text.splitlines()[-1][-300:] if text else "it said nothing"


class Cluster:
    """Brokers that are one Kafka. `url` opens it as a bus."""

    def __init__(self, brokers: list[Broker]) -> None:
        self.brokers = brokers

    @property
    def url(self) -> str:
        return "kafka://" + ",".join(f"127.0.0.1:{broker.port}" for broker in self.brokers)

    def wait(self) -> None:
        """Until every running broker has joined. Raises DevnetError."""
        from kafka import KafkaAdminClient
        from kafka.errors import KafkaError

        deadline = time.monotonic() + START_SECONDS
        expected = {broker.port for broker in self.brokers if broker.running}
        servers = [f"127.0.0.1:{port}" for port in expected]
        while True:
            for broker in self.brokers:
                if broker.port in expected and not broker.running:
                    raise DevnetError(f"a Kafka broker did not start: {broker.last_words()}")
            try:
                with KafkaAdminClient(bootstrap_servers=servers, bootstrap_timeout_ms=1000) as admin:
                    if expected <= {each["port"] for each in admin.describe_cluster()["brokers"]}:
                        return
            except KafkaError:
                pass
            if time.monotonic() > deadline:
                raise DevnetError(
                    f"waited {START_SECONDS:.0f} s for Kafka; a broker's last words: "
                    f"{self.brokers[0].last_words()}"
                )
            time.sleep(0.1)


@contextmanager
def kafka(nodes: int = 1, directory: Path | None = None) -> Iterator[Cluster]:
    """A Kafka of `nodes` brokers, ended with the context. Its data lies in `directory`, where it is found
    again the next time, or nowhere afterwards. Raises DevnetError where Java or Maven is missing."""
    libs = copied()
    with _place(directory) as place:
        cluster = _started(nodes, place, libs)
        try:
            yield cluster
        finally:
            for broker in cluster.brokers:
                broker.kill() if directory is None else broker.stop()


@contextmanager
def _place(directory: Path | None) -> Iterator[Path]:
    if directory is None:
        with TemporaryDirectory(prefix="nektar-kafka-") as temporary:
            yield Path(temporary)
    else:
        directory.mkdir(parents=True, exist_ok=True)
        yield directory.absolute()


def _started(nodes: int, place: Path, libs: Path) -> Cluster:
    for attempt in range(_ATTEMPTS):  # another process may take a port first
        cluster = Cluster(
            [Broker(place / f"broker-{i}", libs, free_port(), free_port()) for i in range(nodes)]
        )
        voters = ",".join(f"{i}@127.0.0.1:{broker.controller}" for i, broker in enumerate(cluster.brokers))
        for i, broker in enumerate(cluster.brokers):
            _configure(broker, i, nodes, voters)
            broker.start()
        try:
            cluster.wait()
        except BaseException as error:
            for broker in cluster.brokers:
                broker.kill()
            if isinstance(error, DevnetError) and attempt + 1 < _ATTEMPTS:
                continue
            raise
        return cluster
    raise AssertionError


def _configure(broker: Broker, node: int, nodes: int, voters: str) -> None:
    """Write the broker's settings, and give it formatted directories where it has none yet."""
    replicas = min(3, nodes)
    data = broker.directory / "data"
    settings = _SETTINGS.format(
        node=node,
        voters=voters,
        port=broker.port,
        controller=broker.controller,
        data=data,
        replicas=replicas,
        in_sync=max(1, replicas - 1),
    )
    broker.directory.mkdir(exist_ok=True)
    (broker.directory / "server.properties").write_text(settings)
    (broker.directory / "log4j2.properties").write_text(_LOGGING)
    if not (data / "meta.properties").exists():
        shutil.copytree(_formatted(broker._libs, settings, broker.directory), data)
        (data / "meta.properties").write_text(
            f"version=1\ncluster.id=nektar-devnet\nnode.id={node}\ndirectory.id={secrets.token_urlsafe(16)}\n"
        )


# --- what brokers run from ----------------------------------------------------------------------------


def copied() -> Path:
    """The directory with Kafka's artifacts, copied by Maven where they are not there yet.

    Raises DevnetError where Java or Maven is missing, or Maven can't get them.
    """
    _need_java()
    libs = BUILD / "libs"
    with _alone():
        if not _is_of_pom(libs):
            if shutil.which("mvn") is None:
                raise DevnetError(
                    "Kafka's artifacts come by Maven, and there is no `mvn` on the PATH; install Maven "
                    "(Debian: `apt-get install maven`) and try again"
                )
            fresh = BUILD / "libs.new"
            shutil.rmtree(fresh, ignore_errors=True)
            command = ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies"]
            done = subprocess.run(
                [*command, "-DincludeScope=runtime", f"-DoutputDirectory={fresh}"],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                said = (done.stdout + done.stderr).strip().splitlines() or ["no words"]
                raise DevnetError(f"Maven could not get Kafka's artifacts: {said[0][-300:]}")
            shutil.copy(POM, fresh)
            shutil.rmtree(libs, ignore_errors=True)
            fresh.rename(libs)
    return libs


def _formatted(libs: Path, settings: str, directory: Path) -> Path:
    """What Kafka's own tool makes of an empty data directory, made once: another JVM takes its seconds."""
    formatted = BUILD / "formatted"
    with _alone():
        if not _is_of_pom(formatted):
            shutil.rmtree(formatted, ignore_errors=True)
            with TemporaryDirectory(dir=BUILD) as making:
                data = Path(making) / "data"
                properties = Path(making) / "server.properties"
                properties.write_text(f"{settings}log.dirs={data}\n")
                tool = [*_java(libs, directory), "kafka.tools.StorageTool", "format", "--cluster-id"]
                done = subprocess.run(
                    [*tool, "nektar-devnet", "--config", str(properties)],
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if done.returncode:
                    raise DevnetError(f"Kafka could not format a directory: {done.stderr.strip()[-300:]}")
                shutil.copy(POM, data)
                data.rename(formatted)
    return formatted


def _is_of_pom(directory: Path) -> bool:
    made_of = directory / POM.name
    return made_of.is_file() and made_of.read_bytes() == POM.read_bytes()


@contextmanager
def _alone() -> Iterator[None]:
    """One process at a time makes what all use."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _java(libs: Path, directory: Path) -> list[str]:
    logging = f"-Dlog4j2.configurationFile={(directory / 'log4j2.properties').as_uri()}"
    return ["java", *_JVM, logging, "-cp", f"{libs}/*"]


def _need_java() -> None:
    try:
        done = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False)
        found = done.stderr.partition('version "')[2].partition(".")[0]
    except OSError:
        found = ""
    if not found.isdigit() or int(found) < JAVA:
        raise DevnetError(
            f"Kafka needs Java {JAVA} or newer on the PATH; found {found or 'none'}. Install it (Debian: "
            "`apt-get install default-jre-headless`) and try again"
        )


def main() -> None:
    """Run brokers until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m devnet.kafka", description=__doc__)
    parser.add_argument("--nodes", type=int, default=1, help="how many brokers")
    parser.add_argument("--dir", type=Path, help="where data stays; a temporary directory by default")
    options = parser.parse_args()
    stop: threading.Event = stop_on_signals()
    try:
        with kafka(options.nodes, options.dir) as cluster:
            print(cluster.url, flush=True)  # noqa: T201
            while not stop.wait(0.2):
                for broker in cluster.brokers:
                    if not broker.running:
                        raise DevnetError(f"a Kafka broker ended: {broker.last_words()}")
    except NektarError as error:
        print(f"nektar: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(1)


if __name__ == "__main__":
    main()
