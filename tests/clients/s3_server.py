"""An S3 server on loopback for the tests: `s3_server.py ready.json bucket journal port`. It writes its options, including the
endpoint, to ready.json, and runs until it is killed.

moto first checks `If-None-Match: *` and then stores the object, so another writer could store it in between. Real S3 does both
atomically, and the Delta log relies on that. This server therefore handles one request at a time.

moto keeps all objects in memory. This server therefore writes each change to a journal before it responds, and replays an
existing journal when it starts. Changes that were acknowledged before a `kill -9` are not lost.
"""

import io
import json
import os
import pickle
import sys
import threading

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


class Quiet(WSGIRequestHandler):
    """Keeps connections alive, and does not log requests."""

    protocol_version = "HTTP/1.1"

    def log_request(self, *_):
        pass


def journaled(application, path):
    """Wraps an application so that it handles one request at a time and writes its changes to a journal."""
    lock = threading.Lock()

    def ask(environ, body):
        """Returns the status, headers and body of the response."""
        started = []
        environ = environ | {
            "wsgi.version": (1, 0), "wsgi.input": io.BytesIO(body), "wsgi.errors": sys.stderr,
            "wsgi.multithread": True, "wsgi.multiprocess": False, "wsgi.run_once": False,
        }
        chunks = list(application(environ, lambda status, headers, _=None: started.extend((status, headers))))
        return started[0], started[1], chunks

    with open(path, "a+b") as journal:
        journal.seek(0)
        while True:
            end = journal.tell()
            try:
                ask(*pickle.load(journal))
            except (EOFError, pickle.UnpicklingError):
                # The server was killed while it wrote this change, which was therefore never acknowledged.
                journal.truncate(end)
                break
    journal = open(path, "ab")

    def answer(environ, start_response):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        request = {name: value for name, value in environ.items() if isinstance(value, str)}
        with lock:
            status, headers, chunks = ask(request, body)
            if environ["REQUEST_METHOD"] in ("PUT", "POST", "DELETE") and status.startswith("2"):
                pickle.dump((request, body), journal)
                journal.flush()
        start_response(status, headers)
        return chunks

    return answer


def main():
    """Listens, creates the bucket if the journal is new, checks conditional puts, and writes ready.json."""
    ready, bucket, journal, port = sys.argv[1:]
    is_new = not os.path.exists(journal)
    application = journaled(DomainDispatcherApplication(create_backend_app), journal)
    server = make_server("127.0.0.1", int(port), application, threaded=True, request_handler=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    import boto3

    options = {
        "aws_endpoint": f"http://127.0.0.1:{server.server_port}",
        "aws_region": "us-east-1",
        "aws_access_key_id": "testing",
        "aws_secret_access_key": "testing",
        "aws_allow_http": "true",
    }
    client = boto3.client(
        "s3", endpoint_url=options["aws_endpoint"], region_name="us-east-1",
        aws_access_key_id="testing", aws_secret_access_key="testing",
    )
    if is_new:
        client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key="probe", Body=b"1", IfNoneMatch="*")
    try:
        client.put_object(Bucket=bucket, Key="probe", Body=b"2", IfNoneMatch="*")
        raise SystemExit("this S3 server does not support conditional puts")
    except client.exceptions.ClientError as error:
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 412, error
    client.delete_object(Bucket=bucket, Key="probe")
    with open(f"{ready}.draft", "w", encoding="utf-8") as file:
        json.dump(options, file)
    os.rename(f"{ready}.draft", ready)
    threading.Event().wait()


if __name__ == "__main__":
    main()
