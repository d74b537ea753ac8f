"""Checks that a running server refuses revoked tokens, and ends only their queries and uploads.

The facts contain the command line of `glasshouse`, its environment, and the path of the file with the revocations.
"""

import http.client
import itertools
import json
import os
import pathlib
import subprocess
import time
import urllib.error
import urllib.request

import adbc_driver_flightsql as driver
import adbc_driver_flightsql.dbapi as dbapi
import adbc_driver_manager as manager
import pyarrow as pa

import rows
from checks import check, equal, main, refused

STATUS = manager.AdbcStatusCode
# A server reads the file every five seconds, but a busy host may need longer.
NOTICED_SECONDS_MAX = 120
# A query with many rows, of which a client reads a few.
LONG = "SELECT value FROM range(0, 1000000000000)"


def connect(facts, caller):
    header = driver.DatabaseOptions.AUTHORIZATION_HEADER.value
    options = {header: f"Bearer {facts['tokens'][caller]}"}
    return dbapi.connect(f"grpc://{facts['flight']}", db_kwargs=options, autocommit=True)


def ask(facts, caller):
    """Runs a query and returns its value."""
    with connect(facts, caller) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        return cursor.fetchone()[0]


def get(facts, caller, path):
    """Returns the status and the body of a GET request."""
    request = urllib.request.Request(
        f"http://{facts['http']}{path}", headers={"authorization": f"Bearer {facts['tokens'][caller]}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def revoke(facts, *arguments, stdin=""):
    """Runs `glasshouse revoke` and returns its output."""
    command = [*facts["command"], "revoke", *arguments]
    ended = subprocess.run(
        command, input=stdin, env=os.environ | facts["environment"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended
    return ended.stdout


def until(what, is_so):
    """Polls until the condition is true."""
    end = time.monotonic() + NOTICED_SECONDS_MAX
    while not is_so():
        assert time.monotonic() < end, f"still waiting: {what}"
        time.sleep(0.05)


def until_refused(facts, caller):
    """Waits until the server refuses the caller over HTTP, and checks the errors of both endpoints."""
    until(f"{caller} is refused", lambda: get(facts, caller, "/v1/tables")[0] == 401)
    status, body = get(facts, caller, "/v1/tables")
    equal((status, json.loads(body)["error"]["message"]), (401, "the token has been revoked: get a new one"))
    error = refused(lambda: ask(facts, caller), dbapi.Error, "the token has been revoked: get a new one")
    equal(error.status_code, STATUS.UNAUTHENTICATED, error)


def metric(facts, name):
    """Returns the value of a metric without labels."""
    status, page = get(facts, "admin", "/metrics")
    equal(status, 200, page)
    return next(float(line.split()[1]) for line in page.splitlines() if line.startswith(f"{name} "))


def batches(after_a_second):
    """Yields small batches of events for as long as an upload may run. Calls `after_a_second` after about a second."""
    end = time.monotonic() + NOTICED_SECONDS_MAX
    for index in itertools.count():
        if time.monotonic() > end:
            return
        time.sleep(0.05)
        if index == 20:
            after_a_second()
        ids = [f"upload-{index}-{row}" for row in range(10)]
        times = pa.array([rows.START] * 10, pa.timestamp("us", "UTC"))
        yield pa.record_batch({"at": times, "id": ids, "of_net_flow": list(range(10))})


@check
def a_revoked_token_is_refused_and_its_queries_end(facts):
    equal((ask(facts, "leaked"), get(facts, "leaked", "/v1/tables")[0]), (1, 200))
    # The statement cannot be closed after the revocation, because the server refuses the call.
    running = connect(facts, "leaked").cursor()
    with connect(facts, "globex") as connection, connection.cursor() as other:
        running.execute(LONG)
        other.execute(LONG)
        stream, undisturbed = running.fetch_record_batch(), other.fetch_record_batch()
        assert stream.read_next_batch().num_rows and undisturbed.read_next_batch().num_rows
        equal(
            revoke(facts, "--token", "-", "--reason", "in a public repository", stdin=facts["tokens"]["leaked"]),
            "revoked the token with the id `leaked-1` from `https://issuer.test` (in a public repository)\n",
        )
        until_refused(facts, "leaked")

        def drain():
            while True:
                stream.read_next_batch()

        error = refused(drain, Exception, "the token was revoked while the query was running: get a new token")
        # The client has read batches ahead. These reads reach those that the server sends after the revocation.
        for _ in range(20):
            assert undisturbed.read_next_batch().num_rows
    equal(ask(facts, "acme"), 1, "another token of the same tenant")
    return error


@check
def revoking_twice_changes_nothing(facts):
    before = pathlib.Path(facts["revocations"]).read_text(encoding="utf-8")
    assert revoke(facts, "--token-id", "leaked-1").startswith("already revoked the token"), before
    equal(pathlib.Path(facts["revocations"]).read_text(encoding="utf-8"), before)
    equal(
        revoke(facts, "--list"), "the token with the id `leaked-1` from `https://issuer.test` (in a public repository)\n"
    )


@check
def running_uploads_of_a_revoked_subject_end(facts):
    token = facts["tokens"]["writer"]
    slow = http.client.HTTPConnection(facts["http"], timeout=60)
    slow.putrequest("POST", "/v1/tables/net_flow/events")
    for name, value in {
        "authorization": f"Bearer {token}", "content-type": "application/x-ndjson", "transfer-encoding": "chunked"
    }.items():
        slow.putheader(name, value)
    slow.endheaders()
    slow.send(b"2\r\n\n\n\r\n")

    schema = pa.schema({"at": pa.timestamp("us", "UTC"), "id": pa.string(), "of_net_flow": pa.int64()})
    with connect(facts, "writer") as connection, connection.cursor() as cursor:
        # The upload is running when its token is revoked.
        revoking = ("--issuer", "tests", "--subject", "writer", "--issued-before", "now")
        reader = pa.RecordBatchReader.from_batches(schema, batches(lambda: revoke(facts, *revoking)))
        error = refused(
            lambda: cursor.adbc_ingest("net_flow", reader, mode="append"), dbapi.Error, "the token was revoked during"
        )
        equal(error.status_code, STATUS.UNAUTHENTICATED, error)
    slow.send(b"0\r\n\r\n")
    answer = slow.getresponse()
    equal((answer.status, "revoked" in answer.read().decode()), (401, True))
    return error


@check
def an_invalid_file_keeps_the_revocations(facts):
    path = pathlib.Path(facts["revocations"])
    valid = path.read_text(encoding="utf-8")
    for invalid in ("[[revocations]]\nisuer = 'x'\n", None):
        if invalid is None:
            path.unlink()
        else:
            path.write_text(invalid, encoding="utf-8")
        until("the file is invalid", lambda: metric(facts, "glasshouse_revocations_file_invalid") == 1)
        equal(metric(facts, "glasshouse_revocations"), 2)
        until_refused(facts, "leaked")
        path.write_text(valid, encoding="utf-8")
        until("the file is valid again", lambda: metric(facts, "glasshouse_revocations_file_invalid") == 0)
    until_refused(facts, "leaked")


@check
def a_removed_revocation_ends(facts):
    pathlib.Path(facts["revocations"]).write_text("", encoding="utf-8")
    until("the token is accepted again", lambda: get(facts, "leaked", "/v1/tables")[0] == 200)
    equal(ask(facts, "leaked"), 1)


main()
