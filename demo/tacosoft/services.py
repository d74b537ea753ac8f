"""Runs the services of the TacoSoft demo on loopback: PostgreSQL, Kafka, and Kafka Connect with Debezium.

    services.py ready.json   for the tests: starts all three on free ports, writes the ports, and stops when its input is closed

`tests/clients/setup.sh` installs the programs. Each service has its own log. The data is in a temporary folder, which is removed
at the end.
"""

import contextlib
import json
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import sys
import urllib.request

import psycopg

from processes import Failure, Service, free_ports, is_listening, scratch
from traffic import Traffic

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = ROOT / ".cache"
# The name of TacoSoft's database, user and replication slot, and the prefix of its topics.
NAME = "tacosoft"
TOPIC = f"{NAME}.public.orders"
JAVA_MIN = 17
# The number of delivered orders that exist before the tests begin.
HISTORY_ORDERS = 50


def check_programs():
    """Fails if a program is not installed."""
    if not (CACHE / "postgres/initdb").exists() or not (CACHE / "kafka/.made-from").exists():
        raise Failure("PostgreSQL or Kafka is missing: run tests/clients/setup.sh python kafka postgres")
    if shutil.which("java") is None:
        raise Failure(f"java is missing: install a JDK, {JAVA_MIN} or newer (apt-get install openjdk-17-jdk-headless)")


# PostgreSQL ----------------------------------------------------------------------------------------------------------


def start_postgres(folder, logs, port):
    """Starts a new PostgreSQL cluster with logical replication."""
    data = folder / "postgres"
    data.mkdir(mode=0o700)
    as_user = {"cwd": "/"}
    if os.geteuid() == 0:
        # PostgreSQL refuses to run as root.
        user = _unprivileged_user()
        os.chown(data, user.pw_uid, user.pw_gid)
        as_user |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    programs = (CACHE / "postgres").resolve()
    made = subprocess.run(
        [programs / "initdb", "-D", data, "-U", NAME, "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"],
        capture_output=True, text=True, **as_user,
    )
    if made.returncode:
        raise Failure(f"PostgreSQL could not create its data folder: {made.stderr.strip()}")
    settings = {
        "port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "wal_level": "logical",
        # The data is deleted when the demo ends, so it need not survive a crash.
        "fsync": "off",
    }
    settings = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
    command = [programs / "postgres", "-D", data, *settings]
    # SIGINT requests a fast shutdown, which does not wait for clients to disconnect.
    return Service("postgres", command, logs, lambda: is_postgres_ready(port), stop_signal=signal.SIGINT, **as_user)


def make_database(port):
    """Creates TacoSoft's database with its tables and restaurants."""
    with connect(port, database="postgres") as connection:
        connection.execute(f"CREATE DATABASE {NAME}")
    with connect(port) as connection, connection.cursor() as cursor:
        cursor.execute((HERE / "schema.sql").read_text())
        with cursor.copy("COPY restaurants FROM STDIN (FORMAT csv, HEADER)") as copy:
            copy.write((HERE / "restaurants.csv").read_bytes())


def is_postgres_ready(port):
    """Returns true if PostgreSQL accepts connections."""
    try:
        connect(port, database="postgres").close()
    except psycopg.OperationalError:
        return False
    return True


def connect(port, database=NAME):
    """Connects to the database in autocommit mode."""
    return psycopg.connect(
        host="127.0.0.1", port=port, user=NAME, dbname=database, autocommit=True, connect_timeout=10,
    )


def export_restaurants(port, file):
    """Writes the restaurants as CSV if they have changed. The file is replaced atomically, so readers never see a partial file."""
    with connect(port) as connection, connection.cursor() as cursor:
        with cursor.copy("COPY (SELECT * FROM restaurants ORDER BY restaurant_id) TO STDOUT (FORMAT csv, HEADER)") as copy:
            text = b"".join(copy)
    if not file.exists() or file.read_bytes() != text:
        draft = file.with_suffix(".draft")
        draft.write_bytes(text)
        draft.rename(file)


def _unprivileged_user():
    """Returns the user that Debian creates for PostgreSQL, or `nobody`."""
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise Failure("PostgreSQL must not run as root, and there is no user `postgres` or `nobody`: run this as another user")


# Kafka ---------------------------------------------------------------------------------------------------------------


def _java(heap, *words):
    logger = "-Dorg.slf4j.simpleLogger"
    # Debezium logs two warnings for each built-in type of PostgreSQL.
    quiet = [f"{logger}.defaultLogLevel=warn", f"{logger}.log.io.debezium.connector.postgresql.TypeRegistry=error"]
    fast = [f"-Xmx{heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    return ["java", *fast, *quiet, "-cp", f"{CACHE / 'kafka'}/*", *words]


def start_kafka(folder, logs, port, controller_port):
    """Starts a broker that is also the controller."""
    settings = (ROOT / "tests/clients/kafka/server.properties").read_text()
    for key, value in {"port": port, "controller_port": controller_port, "data": folder / "kafka"}.items():
        settings = settings.replace(f"{{{key}}}", str(value))
    file = folder / "kafka.properties"
    file.write_text(settings)
    made = subprocess.run(
        _java("256m", "kafka.tools.StorageTool", "format", "-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c", str(file)),
        capture_output=True, text=True,
    )
    if made.returncode:
        raise Failure(f"Kafka could not create its data folder: {made.stderr.strip()}")
    return Service("kafka", _java("512m", "kafka.Kafka", file), logs, lambda: is_listening(port))


# Kafka Connect and Debezium ------------------------------------------------------------------------------------------


def start_connect(folder, logs, port, postgres_port, kafka_port):
    """Starts a Kafka Connect worker with Debezium, which sends each change of the database to Kafka."""
    connector = (HERE / "debezium.properties").read_text().format(postgres_port=postgres_port)
    return start_worker(folder, logs, port, kafka_port, [connector], lambda: has_sent_orders(port))


def start_worker(folder, logs, port, kafka_port, connectors, is_ready):
    """Starts a Kafka Connect worker. Each connector is the text of a properties file, which may override the converters."""
    worker = {
        "bootstrap.servers": f"127.0.0.1:{kafka_port}",
        "listeners": f"http://127.0.0.1:{port}",
        "plugin.discovery": "service_load",
        "offset.storage.file.filename": folder / "connect.offsets",
        "offset.flush.interval.ms": 1000,
        "key.converter": "org.apache.kafka.connect.json.JsonConverter",
        "key.converter.schemas.enable": "false",
        "value.converter": "org.apache.kafka.connect.json.JsonConverter",
        "value.converter.schemas.enable": "false",
    }
    files = [folder / "connect.properties"]
    files[0].write_text("".join(f"{key}={value}\n" for key, value in worker.items()))
    for number, connector in enumerate(connectors):
        files.append(folder / f"connector-{number}.properties")
        files[-1].write_text(connector)
    command = _java("512m", "org.apache.kafka.connect.cli.ConnectStandalone", *files)
    return Service("connect", command, logs, is_ready)


def has_sent_orders(port):
    """Returns true if the connector has sent an order, which means that the topic exists. Fails if the connector has failed."""
    return have_sent(port, {NAME: TOPIC})


def have_sent(port, topics):
    """Returns true if each connector has sent a message to its topic. Fails if a connector has failed."""
    for connector, topic in topics.items():
        status = _ask(port, connector, "status")
        for task in status.get("tasks", []) if status else []:
            if task["state"] == "FAILED":
                raise Failure(f"Debezium has failed:\n{task.get('trace', '')}")
        found = _ask(port, connector, "topics")
        if not found or topic not in found[connector]["topics"]:
            return False
    return True


def _ask(port, connector, question):
    """Requests the status or topics of a connector. Returns `None` while the worker does not respond."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/connectors/{connector}/{question}", timeout=10) as answer:
            return json.load(answer)
    except OSError:
        return None


# All services ---------------------------------------------------------------------------------------------------------


def start_all(stack, logs, ports, say=lambda text: None, fill=lambda postgres_port: None):
    """Starts all services and adds them to the stack, which stops them in reverse order. Returns them by name, and their folder.

    The keys of `ports` are postgres, kafka, controller and connect. `fill` inserts rows into the database before Debezium starts.
    """
    check_programs()
    folder = stack.enter_context(scratch())
    services = {}

    def add(service):
        services[service.name] = service
        stack.callback(service.stop)

    say("Kafka")
    add(start_kafka(folder, logs, ports["kafka"], ports["controller"]))
    say("PostgreSQL")
    add(start_postgres(folder, logs, ports["postgres"]))
    services["postgres"].wait()
    make_database(ports["postgres"])
    fill(ports["postgres"])
    services["kafka"].wait()
    say("Kafka Connect with Debezium")
    add(start_connect(folder, logs, ports["connect"], ports["postgres"], ports["kafka"]))
    services["connect"].wait()
    return services, folder


def main():
    """Runs the services for the tests, as described above. The input line `crash` kills Connect and restarts it."""
    ready = pathlib.Path(sys.argv[1])
    logs = ready.parent
    ports = dict(zip(("postgres", "kafka", "controller", "connect"), free_ports(4)))

    def fill(postgres_port):
        with connect(postgres_port) as connection:
            Traffic(connection).place_history(HISTORY_ORDERS)

    try:
        with contextlib.ExitStack() as stack:
            running, folder = start_all(stack, logs, ports, fill=fill)
            restaurants = logs / "restaurants.csv"
            export_restaurants(ports["postgres"], restaurants)
            draft = ready.with_suffix(".draft")
            draft.write_text(json.dumps(ports | {"restaurants": str(restaurants)}))
            draft.rename(ready)
            for line in sys.stdin:
                if line.strip() == "crash":
                    running["connect"].process.kill()
                    running["connect"].process.wait()
                    running["connect"] = start_connect(folder, logs, ports["connect"], ports["postgres"], ports["kafka"])
                    stack.callback(running["connect"].stop)
    except Failure as failure:
        sys.exit(f"tacosoft: {failure}")


if __name__ == "__main__":
    main()
