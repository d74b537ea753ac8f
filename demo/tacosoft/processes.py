"""Runs child processes that end with their parent, each with a log, a readiness check and a graceful stop.

A command becomes a running Service, or a Failure whose message says what to do. When the parent stops, it stops its services in
order. When the parent is killed, its services are killed immediately.
"""

import contextlib
import ctypes
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time

# Time limits for starting and stopping a service.
START_SECONDS_MAX = 120
STOP_SECONDS_MAX = 15
POLL_SECONDS = 0.05
LOG_LINES_SHOWN = 15
# The first port that `free_ports` can return, and the default start of the ephemeral range.
FIRST_PORT, EPHEMERAL_PORT = 10000, 32768


class Failure(Exception):
    """An error that is shown to the user. The message says what to do."""


class Service:
    """A running process with a name, a log, a readiness check, and the signal that stops it."""

    def __init__(self, name, command, logs, is_ready, stop_signal=signal.SIGTERM, **options):
        self.name, self.is_ready, self.stop_signal = name, is_ready, stop_signal
        self.log = logs / f"{name}.log"
        with open(self.log, "ab") as log:
            # The service has its own session, so ctrl-C reaches only the parent, which stops its services in order.
            self.process = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, preexec_fn=_end_with_parent, **options,
            )

    def wait(self):
        """Waits until the service is ready. Fails if the process ends or takes too long."""
        until = time.monotonic() + START_SECONDS_MAX
        while not self.is_ready():
            if self.process.poll() is not None:
                raise self.failure()
            if time.monotonic() > until:
                raise Failure(f"{self.name} is not ready after {START_SECONDS_MAX} s; {self.log} ends with\n{self.tail()}")
            time.sleep(POLL_SECONDS)

    def failure(self):
        """Returns the error for a process that has ended, with the last lines of its log."""
        return Failure(f"{self.name} has ended ({self.process.returncode}); {self.log} ends with\n{self.tail()}")

    def tail(self):
        """Returns the last lines of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:])

    def stop(self):
        """Stops the process with its signal, and kills it if that takes too long. A paused process is resumed first."""
        if self.process.poll() is None:
            self.process.send_signal(self.stop_signal)
            self.process.send_signal(signal.SIGCONT)
            try:
                self.process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


# This is looked up before a fork, because no library may be loaded between fork and exec.
_prctl = getattr(ctypes.CDLL(None), "prctl", None)


def _end_with_parent():
    """Makes the kernel kill this new child when its parent dies for any reason. Has no effect on systems other than Linux."""
    if _prctl is not None:
        _prctl(1, signal.SIGKILL)


@contextlib.contextmanager
def scratch():
    """Creates a temporary folder that PostgreSQL's user can access too, and removes it at the end."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tacosoft-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(count):
    """Returns free ports outside the ephemeral range. An outgoing connection could take an ephemeral port before the service
    listens, or while it restarts."""
    ports = set()
    while len(ports) < count:
        port = random.randrange(FIRST_PORT, _first_ephemeral_port())
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports.add(port)
    return sorted(ports)


def _first_ephemeral_port():
    """Returns the first port of the ephemeral range."""
    try:
        first = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return EPHEMERAL_PORT
    return first if first > 2 * FIRST_PORT else EPHEMERAL_PORT


def is_listening(port):
    """Returns true if a process listens on the port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
