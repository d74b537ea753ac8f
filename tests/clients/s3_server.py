"""An S3 server on this machine for the tests: `s3_server.py ready.json bucket`. It writes its port and serves until killed.

moto checks `If-None-Match: *` and then stores the object: two steps, between which another writer could come. Real S3
does both at once, and the Delta log relies on it. So requests are answered one at a time.
"""

import json
import os
import sys
import threading

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


class Quiet(WSGIRequestHandler):
    """Keeps connections, says nothing."""

    protocol_version = "HTTP/1.1"

    def log_request(self, *_):
        pass


def one_at_a_time(application):
    """The same application, answering each request as a whole before the next."""
    lock = threading.Lock()

    def answer(environ, start_response):
        with lock:
            return list(application(environ, start_response))

    return answer


def main():
    """Makes the bucket, listens, tells the port."""
    ready, bucket = sys.argv[1:]
    application = one_at_a_time(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
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
    client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key="probe", Body=b"1", IfNoneMatch="*")
    try:
        client.put_object(Bucket=bucket, Key="probe", Body=b"2", IfNoneMatch="*")
        raise SystemExit("this server has no conditional puts")
    except client.exceptions.ClientError as error:
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 412, error
    client.delete_object(Bucket=bucket, Key="probe")
    with open(f"{ready}.draft", "w", encoding="utf-8") as file:
        json.dump(options, file)
    os.rename(f"{ready}.draft", ready)
    threading.Event().wait()


if __name__ == "__main__":
    main()
