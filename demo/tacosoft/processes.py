"""Processes that end with their owner: each with a log, a way to see that it answers, and an ordered stop.

In: a command. Out: a running Part, or a Failure whose message says what to do. What is started is stopped: in order when
the owner stops, at once when it dies.
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

# Time for a part to answer, and to end when it is asked to.
START_SECONDS_MAX = 120
STOP_SECONDS_MAX = 15
LOOK_EVERY_SECONDS = 0.05
LOG_LINES_SHOWN = 15
# The first port that a part may get, and the usual start of the ephemeral range.
FIRST_PORT, EPHEMERAL_PORT = 10000, 32768


class Failure(Exception):
    """What a person has to hear; the message says what to do."""


class Part:
    """A running process with a name, a log, how to see that it answers, and the signal that asks it to stop."""

    def __init__(self, name, command, logs, is_ready, stop_signal=signal.SIGTERM, **options):
        self.name, self.is_ready, self.stop_signal = name, is_ready, stop_signal
        self.log = logs / f"{name}.log"
        with open(self.log, "ab") as log:
            # In a session of its own: ctrl-C reaches the owner alone, which stops its parts in order.
            self.process = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, preexec_fn=_end_with_parent, **options,
            )

    def wait(self):
        """Looks until it answers; fails when it has ended, or takes too long."""
        until = time.monotonic() + START_SECONDS_MAX
        while not self.is_ready():
            if self.process.poll() is not None:
                raise self.failure()
            if time.monotonic() > until:
                raise Failure(f"{self.name} does not answer after {START_SECONDS_MAX} s; {self.log} ends with\n{self.tail()}")
            time.sleep(LOOK_EVERY_SECONDS)

    def failure(self):
        """That it has ended, and what it said last."""
        return Failure(f"{self.name} has ended ({self.process.returncode}); {self.log} ends with\n{self.tail()}")

    def tail(self):
        """The last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:])

    def stop(self):
        """Asks it to stop, waits, and ends it when it does not. A part that was paused goes on first."""
        if self.process.poll() is None:
            self.process.send_signal(self.stop_signal)
            self.process.send_signal(signal.SIGCONT)
            try:
                self.process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


# Found before a child is made: between fork and exec nothing may be loaded.
_prctl = getattr(ctypes.CDLL(None), "prctl", None)


def _end_with_parent():
    """In a new child: the kernel ends it when its parent dies, however that happens. Linux only; elsewhere nothing is done."""
    if _prctl is not None:
        _prctl(1, signal.SIGKILL)


@contextlib.contextmanager
def scratch():
    """A folder for data that nobody keeps, which PostgreSQL's user can reach as well."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tacosoft-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(count):
    """Ports on which nobody listens. None is in the ephemeral range: an outgoing connection could take it before its part
    listens, or while its part restarts."""
    ports = set()
    while len(ports) < count:
        port = random.randrange(FIRST_PORT, _first_ephemeral_port())
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports.add(port)
    return sorted(ports)


def _first_ephemeral_port():
    """The first port of the ephemeral range."""
    try:
        first = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return EPHEMERAL_PORT
    return first if first > 2 * FIRST_PORT else EPHEMERAL_PORT


def is_listening(port):
    """Whether somebody answers there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
