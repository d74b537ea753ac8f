"""Runs the TacoSoft demo: PostgreSQL, Kafka, Connect with Debezium, Glasshouse, and simulated orders. See docs/tacosoft.md.

Requires a built server and the programs that `tests/clients/setup.sh` installs. Prints commands to paste, and a live view of two
tenants. Each run starts with an empty database and lake. Ctrl-C stops all processes in reverse order.
"""

import argparse
import concurrent.futures
import contextlib
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time

import live
import services
from processes import Failure, Service, free_ports, is_listening
from traffic import RESTAURANTS, Traffic

PORTS = {"postgres": 15432, "kafka": 19092, "controller": 19093, "connect": 18083, "flight": 8815, "http": 8080}
TENANTS = ("fuego", "verde")
# The number of delivered orders that exist at the start.
HISTORY_ORDERS = 500
# The services that are restarted when they are killed, and the maximum number of restarts.
RESTARTED = ("glasshouse", "connect")
RESTARTS_MAX = 50


class Demo:
    """The running services, and the settings with which they are restarted."""

    def __init__(self, given, stack):
        self.given, self.stack, self.started = given, stack, time.monotonic()
        self.work = pathlib.Path(given.work).resolve()
        self.logs = self.work / "logs"
        self.ports = dict(PORTS)
        self.services, self.folder, self.restarts, self.failure = {}, None, 0, None
        self.stopping = threading.Event()

    def start(self):
        """Starts all services, in the order of the data flow."""
        if self.given.free_ports:
            self.ports = dict(zip(PORTS, free_ports(len(PORTS))))
        for name, port in self.ports.items():
            if is_listening(port):
                raise Failure(f"port {port} ({name}) is in use: stop the process that uses it, or add --free-ports")
        if not pathlib.Path(self.given.server).is_file():
            raise Failure(f"{self.given.server} does not exist: build it with cargo build --bin glasshouse")
        self.make_folder()
        self.services, self.folder = services.start_all(self.stack, self.logs, self.ports, self.say, self.fill)
        for service in self.services.values():
            self.write_pid(service)
        self.export()
        self.say("Glasshouse")
        self.add(self.start_glasshouse())
        self.services["glasshouse"].wait()
        traffic = threading.Thread(target=self.order, daemon=True)
        self.stack.callback(traffic.join)
        self.stack.callback(self.stopping.set)
        traffic.start()
        self.say("orders")

    def make_folder(self):
        """Creates an empty working folder. Removes an existing one only if an earlier run created it."""
        mark = self.work / ".tacosoft"
        if mark.exists():
            shutil.rmtree(self.work)
        elif self.work.exists() and any(self.work.iterdir()):
            raise Failure(f"{self.work} is not empty and was not created by this demo: choose another folder with --work")
        self.logs.mkdir(parents=True)
        mark.touch()

    def say(self, what):
        """Prints progress with the elapsed seconds."""
        print(f"tacosoft: {time.monotonic() - self.started:5.1f} s  {what}", file=sys.stderr, flush=True)

    def fill(self, port):
        """Inserts the orders of the last week."""
        with services.connect(port) as connection:
            Traffic(connection).place_history(HISTORY_ORDERS)

    def export(self):
        """Exports the restaurants to the lookup table's file, which Glasshouse rereads every few seconds."""
        services.export_restaurants(self.ports["postgres"], self.work / "restaurants.csv")

    def add(self, service):
        """Registers a service. It is stopped at the end."""
        self.services[service.name] = service
        self.stack.callback(service.stop)
        self.write_pid(service)

    def write_pid(self, service):
        """Writes the process id of a service to a file, so that users can kill it."""
        (self.work / f"{service.name}.pid").write_text(f"{service.process.pid}\n")

    def start_glasshouse(self):
        """Starts the server with the demo's configuration."""
        ready = self.work / "ready.json"
        ready.unlink(missing_ok=True)
        command = [self.given.server, "--config", services.HERE / "glasshouse.toml", "serve", "--ready-file", ready]
        settings = {
            "LAKE__URL": f"file://{self.work / 'lake'}",
            "FLIGHT__LISTEN": f"127.0.0.1:{self.ports['flight']}",
            "HTTP__LISTEN": f"127.0.0.1:{self.ports['http']}",
            "HTTP__HOME_TABLES": "true",
            "SOURCES__ORDERS__BROKERS": f"127.0.0.1:{self.ports['kafka']}",
            "LOOKUPS__RESTAURANTS__FILE": str(self.work / "restaurants.csv"),
        }
        (self.work / "lake").mkdir(exist_ok=True)
        environment = os.environ | {f"GLASSHOUSE__{key}": value for key, value in settings.items()}
        return Service("glasshouse", command, self.logs, ready.exists, env=environment)

    def order(self):
        """Changes orders at the configured rate until the demo stops."""
        try:
            with services.connect(self.ports["postgres"]) as connection:
                traffic = Traffic(connection, seed=2)
                while not self.stopping.wait(1 / self.given.rate):
                    traffic.step()
        except Exception as error:  # noqa: BLE001: any error ends the demo
            self.failure = self.failure or error

    def look_after(self):
        """Restarts the services in RESTARTED that were killed. Fails if another service has ended."""
        for name, service in list(self.services.items()):
            code = service.process.poll()
            if code is None:
                continue
            self.restarts += 1
            if name not in RESTARTED or self.restarts > RESTARTS_MAX:
                raise service.failure()
            self.say(f"{name} has ended ({code}); restarting it")
            again = self.start_glasshouse if name == "glasshouse" else self.start_connect
            self.add(again())
        if self.failure is not None:
            raise Failure(f"the simulation of orders failed: {self.failure}")

    def start_connect(self):
        """Starts Connect. It continues from the last stored offsets, and sends later changes again."""
        ports = self.ports
        return services.start_connect(self.folder, self.logs, ports["connect"], ports["postgres"], ports["kafka"])

    def token(self, tenant):
        """Returns a tenant's token that is valid for a day, from the server's command line."""
        command = [self.given.server, "--config", services.HERE / "glasshouse.toml", "token", "--tenant", tenant]
        return subprocess.run([*command, "--expires", "24h"], check=True, capture_output=True, text=True).stdout.strip()


def welcome(demo, tokens):
    """Returns the welcome text. Its commands start at the beginning of a line and can be pasted into another terminal, in any
    folder."""
    (one, one_token), (other, other_token) = tokens.items()
    url, psql = f"grpc://127.0.0.1:{demo.ports['flight']}", services.CACHE / "postgres/psql"
    glasshouse, python, psql = (shlex.quote(os.path.abspath(path)) for path in (demo.given.server, sys.executable, psql))
    pids = [shlex.quote(os.path.abspath(demo.work / f"{name}.pid")) for name in RESTARTED]
    return f"""
TacoSoft is running: PostgreSQL {demo.ports['postgres']}, Kafka {demo.ports['kafka']}, Connect {demo.ports['connect']}, \
Glasshouse {demo.ports['flight']} (Flight SQL) and http://127.0.0.1:{demo.ports['http']} (open it in a browser).
Logs and process ids are in {demo.work}.

Open another terminal and paste the tokens of two of the {len(RESTAURANTS)} restaurants. They are valid for one day.

export {one.upper()}={one_token}
export {other.upper()}={other_token}

Query as one restaurant, then as the other.

{glasshouse} query --url {url} --token "${one.upper()}" \
  'select state, count(*) as orders, sum(total) as total from orders group by state'
{glasshouse} query --url {url} --token "${other.upper()}" \
  'select order_id, state, deleted, event_time from orders_changes order by order_id desc, change_order limit 20'

Query from Python over ADBC.

{python} -c '
import os, adbc_driver_flightsql as fs, adbc_driver_flightsql.dbapi as dbapi
header = {{fs.DatabaseOptions.AUTHORIZATION_HEADER.value: "Bearer " + os.environ["{one.upper()}"]}}
with dbapi.connect("{url}", db_kwargs=header, autocommit=True) as connection, connection.cursor() as cursor:
    cursor.execute("select item, count(*) from (select unnest(items) as item from orders) as o group by item")
    print(cursor.fetch_arrow_table())
'

Compare with the restaurants' own database.

{psql} -h 127.0.0.1 -p {demo.ports['postgres']} -U {services.NAME} \
  -c "select state, count(*), sum(total) from orders where restaurant_id = '{one}' group by state"

Kill a process. The demo restarts it, and nothing is lost or stored twice.

kill -9 $(cat {pids[0]})
kill -9 $(cat {pids[1]})

Press ctrl-C to stop everything.
"""


def main():
    """Runs the demo until it is stopped."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--server", default="target/debug/glasshouse", help="the built server")
    arguments.add_argument("--work", default="demo-data/tacosoft", help="the folder for the lake and the logs; recreated by each run")
    arguments.add_argument("--rate", type=float, default=20, help="the number of order changes per second")
    arguments.add_argument("--seconds", type=float, help="stop after this many seconds")
    arguments.add_argument("--free-ports", action="store_true", help="use any free ports instead of the default ones")
    given = arguments.parse_args()
    if not 0 < given.rate <= 1000:
        arguments.error("--rate must be greater than 0 and at most 1000")

    interrupted = threading.Event()

    def interrupt(*_):
        # Only the first signal interrupts, so stopping is not interrupted. `watch` also checks the flag, because a driver
        # may suppress the exception.
        if not interrupted.is_set():
            interrupted.set()
            raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        with contextlib.ExitStack() as stack:
            stack.callback(lambda: print("tacosoft: all services are stopped", file=sys.stderr))
            demo = Demo(given, stack)
            demo.start()
            tokens = {tenant: demo.token(tenant) for tenant in TENANTS}
            print(welcome(demo, tokens), flush=True)
            url = f"grpc://127.0.0.1:{demo.ports['flight']}"
            tenants = [live.Tenant(name, url, token) for name, token in tokens.items()]
            for tenant in tenants:
                stack.callback(tenant.close)
            watch(demo, tenants, given.seconds, interrupted)
    except KeyboardInterrupt:
        pass
    except Failure as failure:
        sys.exit(f"tacosoft: {failure}")


def watch(demo, tenants, seconds, interrupted):
    """Shows the live view until the demo is stopped."""
    until = time.monotonic() + (seconds or float("inf"))
    shown = 0
    with concurrent.futures.ThreadPoolExecutor(len(tenants)) as pool:
        while time.monotonic() < until and not interrupted.is_set():
            before = demo.restarts
            demo.look_after()
            demo.export()
            # If `look_after` printed messages, they remain above the view.
            shown = live.draw(live.picture(tenants, pool), shown if before == demo.restarts else 0)
            interrupted.wait(1)


if __name__ == "__main__":
    main()
