"""Runs PostgreSQL, MariaDB, Kafka, and Kafka Connect with Debezium, for debezium_suite.py.

    debezium_services.py ready.json   starts all on free ports, writes the facts, and stops when its input is closed

The facts contain the ports and the process id of Kafka Connect. When Kafka Connect ends, the script starts it again and updates
the facts, so a test can kill it.
"""

import contextlib
import json
import os
import pathlib
import pwd
import select
import subprocess
import sys

import pymysql

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "demo/tacosoft"))

import services  # noqa: E402: the demo is not an installed package
from processes import Failure, Service, free_ports, scratch  # noqa: E402

# The name of the database in both servers.
DATABASE = "shop"
# The number of rows that exist before Debezium's initial snapshot.
SNAPSHOT_ROWS = 60
# The interval at which the script checks whether Kafka Connect has ended.
POLL_SECONDS = 0.2
TOPICS = {"shop": "shop.public.orders", "maria": "maria.shop.orders", "notes": "notes.public.notes"}

POSTGRES_TABLES = """
CREATE TABLE orders (id bigint PRIMARY KEY, account text, version bigint, total numeric(38, 9), placed timestamp(6), day date,
                     at time(6), note text);
ALTER TABLE orders REPLICA IDENTITY FULL;
ALTER TABLE orders ALTER COLUMN note SET STORAGE EXTERNAL;
CREATE TABLE notes (id bigint PRIMARY KEY, amount numeric, body text);
ALTER TABLE notes ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE TABLE signals (id text PRIMARY KEY, type text, data text);
INSERT INTO notes SELECT id, id * 10, repeat('n', 4000) || id FROM generate_series(1, 20) AS id;
"""
MARIADB_TABLES = """
CREATE TABLE orders (id bigint PRIMARY KEY, account varchar(40), version bigint, total decimal(38, 9), placed datetime(6), day date,
                     at time(6), note longtext);
CREATE TABLE signals (id varchar(64) PRIMARY KEY, type varchar(64), data text);
"""
INSERT = "INSERT INTO orders VALUES (%s, 'acme', %s, %s, %s, %s, %s, %s)"


def order(number, version):
    """Returns the values of an order, which depend on its number and version."""
    total = f"{'-' if number % 2 else ''}{number}{version:019}.{version:09}"
    placed = f"2026-03-{1 + number % 28:02} 12:{version % 60:02}:00.{number % 10**6:06}"
    return number, version, total, placed, placed[:10], placed[11:], f"{number} {version} " + "é" * 3000


def connect_mariadb(port):
    """Connects to MariaDB in autocommit mode."""
    return pymysql.connect(host="127.0.0.1", port=port, user=DATABASE, password=DATABASE, database=DATABASE, autocommit=True,
                           charset="utf8mb4")


def start_mariadb(folder, logs, port):
    """Starts a new MariaDB server that writes a binlog of rows."""
    data, programs = folder / "mariadb", (services.CACHE / "mariadb")
    data.mkdir(mode=0o700)
    as_user, user = {"cwd": "/"}, []
    if os.geteuid() == 0:
        # MariaDB refuses to run as root without an option that names another user.
        owner = _unprivileged_user()
        os.chown(data, owner.pw_uid, owner.pw_gid)
        user = [f"--user={owner.pw_name}"]
    made = subprocess.run(
        [programs.resolve() / "mariadb-install-db", "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal",
         "--skip-test-db", *user],
        capture_output=True, text=True, **as_user,
    )
    if made.returncode:
        raise Failure(f"MariaDB could not create its data folder: {made.stdout.strip()} {made.stderr.strip()}")
    init = folder / "mariadb.sql"
    init.write_text(
        # Each statement must be on its own line.
        f"CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4;\nCREATE USER {DATABASE}@'127.0.0.1' IDENTIFIED BY '{DATABASE}';\n"
        f"GRANT ALL ON *.* TO {DATABASE}@'127.0.0.1';\n",
    )
    command = [
        programs.resolve() / "mariadbd", "--no-defaults", f"--datadir={data}", f"--port={port}", "--bind-address=127.0.0.1",
        f"--socket={data}/socket", f"--pid-file={data}/pid", f"--init-file={init}", "--skip-name-resolve", "--server-id=1",
        "--log-bin=mysql-bin", "--binlog-format=ROW", "--binlog-row-image=FULL", "--innodb-flush-log-at-trx-commit=0", *user,
    ]
    return Service("mariadb", command, logs, lambda: is_mariadb_ready(port), **as_user)


def is_mariadb_ready(port):
    """Returns true if MariaDB accepts connections."""
    try:
        connect_mariadb(port).close()
    except pymysql.Error:
        return False
    return True


def _unprivileged_user():
    for name in ("mysql", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise Failure("MariaDB must not run as root, and there is no user `mysql` or `nobody`: run this as another user")


def fill(ports):
    """Creates the tables, and the rows that the initial snapshot reads."""
    with services.connect(ports["postgres"], database="postgres") as connection:
        connection.execute(f"CREATE DATABASE {DATABASE}")
    rows = [order(number, 1) for number in range(SNAPSHOT_ROWS)]
    with services.connect(ports["postgres"], database=DATABASE) as connection, connection.cursor() as cursor:
        cursor.execute(POSTGRES_TABLES)
        cursor.executemany(INSERT, rows)
    with contextlib.closing(connect_mariadb(ports["mariadb"])) as connection, connection.cursor() as cursor:
        for statement in filter(str.strip, MARIADB_TABLES.split(";")):
            cursor.execute(statement)
        cursor.executemany(INSERT, rows)


def connectors(folder, ports):
    """Returns the properties of the connectors. They differ in the settings that change the form of messages."""
    common = {"tasks.max": 1, "topic.creation.default.partitions": 2, "topic.creation.default.replication.factor": 1,
              "database.hostname": "127.0.0.1", "poll.interval.ms": 50, "incremental.snapshot.chunk.size": 25}
    postgres = common | {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector", "database.port": ports["postgres"],
        "database.user": services.NAME, "database.dbname": DATABASE, "plugin.name": "pgoutput",
        "publication.autocreate.mode": "filtered",
    }
    all_connectors = {
        "shop": postgres | {
            "table.include.list": "public.orders,public.signals", "signal.data.collection": "public.signals",
            "value.converter": "org.apache.kafka.connect.json.JsonConverter", "value.converter.schemas.enable": "true",
        },
        "notes": postgres | {
            "table.include.list": "public.notes", "decimal.handling.mode": "string", "skipped.operations": "none",
        },
        "maria": common | {
            "connector.class": "io.debezium.connector.mariadb.MariaDbConnector", "database.port": ports["mariadb"],
            "database.user": DATABASE, "database.password": DATABASE, "database.server.id": 5701, "database.ssl.mode": "disable",
            "database.include.list": DATABASE, "signal.data.collection": f"{DATABASE}.signals", "tombstones.on.delete": "false",
            "include.schema.changes": "false",
            "schema.history.internal": "io.debezium.storage.file.history.FileSchemaHistory",
            "schema.history.internal.file.filename": folder / "maria.history",
            "value.converter": "org.apache.kafka.connect.json.JsonConverter", "value.converter.schemas.enable": "true",
        },
    }
    for name, properties in all_connectors.items():
        own = {"name": name, "topic.prefix": name, "slot.name": name, "publication.name": name}
        yield "".join(f"{key}={value}\n" for key, value in (properties | own).items())


def main():
    """Runs the services, as described above."""
    ready = pathlib.Path(sys.argv[1])
    logs = ready.parent
    ports = dict(zip(("postgres", "mariadb", "kafka", "controller", "connect"), free_ports(5)))
    services.check_programs()
    try:
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(scratch())

            def add(service):
                stack.callback(service.stop)
                return service

            def start_worker():
                texts = list(connectors(folder, ports))
                is_ready = lambda: services.have_sent(ports["connect"], TOPICS)  # noqa: E731: it is an argument
                worker = add(services.start_worker(folder, logs, ports["connect"], ports["kafka"], texts, is_ready))
                return worker

            started = [
                add(services.start_kafka(folder, logs, ports["kafka"], ports["controller"])),
                add(services.start_postgres(folder, logs, ports["postgres"])),
                add(start_mariadb(folder, logs, ports["mariadb"])),
            ]
            for service in started:
                service.wait()
            fill(ports)
            worker = start_worker()
            worker.wait()
            write(ready, ports, worker)
            while not select.select([sys.stdin], [], [], POLL_SECONDS)[0]:
                if worker.process.poll() is not None:
                    worker = start_worker()
                    write(ready, ports, worker)
    except Failure as failure:
        sys.exit(f"debezium: {failure}")


def write(ready, ports, worker):
    """Writes the facts. The file is replaced atomically."""
    draft = ready.with_suffix(".draft")
    draft.write_text(json.dumps(ports | {"connect_id": worker.process.pid}))
    draft.rename(ready)


if __name__ == "__main__":
    main()
