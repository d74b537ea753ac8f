"""Runs a Glasshouse server in a temporary folder for the benchmarks, and provides its addresses, tokens and resource usage."""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
SECRET = "a-secret-of-the-benches-and-nothing-else"
TENANTS = {"big": 0.80, "middle": 0.18, "small": 0.02}

CONFIG = """
[lake]
url = "file://{folder}/lake"

[flight]
listen = "127.0.0.1:0"

[http]
listen = "127.0.0.1:0"

[query]
rows_max = 100000000
time_max = "10m"

[auth.issuers.bench]
issuer = "bench"
audience = "glasshouse"
algorithms = ["HS256"]
secret = "{secret}"
tenant_claim = "tenant"
scope_claim = "scope"
operators = ["bench"]

[tables.events]
description = "Wide synthetic call events"
tenant = "tenant_id"
time = "event_time"
id = "event_id"
columns = {{ {columns} }}

[policy.events]
"""

#: The columns other than the keys, by type. A call quality dashboard would read these columns.
TEXTS = ["route_id", "event_type", "carrier", "direction", "country_from", "country_to", "edge", "codec"]
INTS = ["duration_ms", "sip_code", "packets_sent", "packets_lost", "bytes_sent"]
FLOATS = ["pdd_ms", "jitter_ms", "loss_ratio", "mos", "round_trip_ms"]


def columns():
    kinds = {"tenant_id": "text", "event_time": "timestamp", "event_id": "text"}
    kinds |= {name: "text" for name in TEXTS} | {name: "int64" for name in INTS} | {name: "float64" for name in FLOATS}
    return kinds


@contextlib.contextmanager
def server(binary, further=""):
    """Runs `binary` with a new lake and the additional configuration `further`. Yields a Server, and then stops it gracefully."""
    with tempfile.TemporaryDirectory(prefix="glasshouse-bench-") as folder:
        config = pathlib.Path(folder, "glasshouse.toml")
        listed = ", ".join(f'{name} = "{kind}"' for name, kind in columns().items())
        config.write_text(CONFIG.format(folder=folder, secret=SECRET, columns=listed) + further)
        ready = pathlib.Path(folder, "ready.json")
        environment = {k: v for k, v in os.environ.items() if not k.startswith("GLASSHOUSE")}
        process = subprocess.Popen(
            [binary, "--config", config, "serve", "--ready-file", ready], env=environment,
            stdout=subprocess.DEVNULL, stderr=open(pathlib.Path(folder, "log"), "w"))
        try:
            while not ready.exists():
                if process.poll() is not None:
                    raise SystemExit(pathlib.Path(folder, "log").read_text())
                time.sleep(0.02)
            yield Server(binary, config, json.loads(ready.read_text()), process.pid)
        finally:
            process.terminate()
            process.wait(60)


class Server:
    """A running server."""

    def __init__(self, binary, config, addresses, pid):
        self.binary, self.config, self.pid, self.admin = binary, config, pid, None
        self.flight = "grpc://" + addresses["flight"]
        self.http = "http://" + addresses["http"]

    def token(self, tenant=None, scopes=("read", "ingest")):
        who = ["--tenant", tenant] if tenant else ["--operator", "--subject", "bench"]
        granted = [word for scope in scopes for word in ("--scope", scope)]
        out = subprocess.run([self.binary, "--config", self.config, "token", *who, *granted],
                             check=True, capture_output=True, text=True)
        return out.stdout.strip()

    def post(self, token, body, kind, table="events"):
        request = urllib.request.Request(f"{self.http}/v1/tables/{table}/events", data=body, method="POST",
                                         headers={"authorization": f"Bearer {token}", "content-type": kind})
        with urllib.request.urlopen(request) as answer:
            return json.loads(answer.read())

    def cpu_seconds(self):
        """Returns the server's user and system CPU time so far, in seconds."""
        # The kernel's clock for the CPU time of another process, in nanoseconds. /proc/PID/stat only has ticks of 10 ms.
        return time.clock_gettime((~self.pid << 3) | 2)

    def metric(self, name):
        """Returns the sum of a metric over its labels, or 0 if the metric does not exist yet."""
        self.admin = self.admin or self.token(scopes=["admin"])
        request = urllib.request.Request(f"{self.http}/metrics", headers={"authorization": f"Bearer {self.admin}"})
        with urllib.request.urlopen(request) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name)

    def memory_mib(self, what="VmHWM"):
        """Returns the server's peak resident memory so far, in MiB."""
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split(f"{what}:")[1].split()[0]) // 1024

    def memory_mib_now(self):
        """Returns the server's current resident memory, in MiB."""
        return self.memory_mib("VmRSS")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(port, process):
    """Waits until a process listens on the port. Exits if the process ends first."""
    while True:
        if process.poll() is not None:
            raise SystemExit(f"the other system exited with code {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
