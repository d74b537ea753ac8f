"""A schema registry for the tests: it implements Confluent's protocol over HTTP on a free loopback port, with its state in memory.

`registry_server.py ready.json` writes its URL to ready.json and runs until its input ends. It requires a user and a password.
`PUT /-/unavailable` makes every request fail until `PUT /-/available`. Responses and error codes follow Confluent's documentation
of the Schema Registry API, and Confluent's own client works with this server.
"""

import base64
import http.server
import json
import os
import re
import sys
import threading
import urllib.parse

USER, PASSWORD = "reader", "open sesame"


class Registry:
    """Schemas by id, and their ids by subject and version."""

    def __init__(self):
        self.lock = threading.Lock()
        self.schemas = []
        self.subjects = {}
        self.is_unavailable = False

    def register(self, subject, body):
        """Registers a schema if it is new. Returns its id."""
        schema = {key: body[key] for key in ("schema", "schemaType", "references") if body.get(key)}
        with self.lock:
            if schema not in self.schemas:
                self.schemas.append(schema)
            number = self.schemas.index(schema) + 1
            versions = self.subjects.setdefault(subject, [])
            if number not in versions:
                versions.append(number)
            return {"id": number}

    def lookup(self, subject, body):
        """Returns the version of a subject that has this schema. Registers the schema if it is new."""
        number = self.register(subject, body)["id"]
        return self.version(subject, self.subjects[subject].index(number) + 1)

    def schema(self, number):
        """Returns the schema with this id, or `None`."""
        if not 0 < number <= len(self.schemas):
            return None
        return self.schemas[number - 1]

    def version(self, subject, version):
        """Returns one version of a subject, or `None`."""
        versions = self.subjects.get(subject, [])
        if not 0 < version <= len(versions):
            return None
        number = versions[version - 1]
        return {"subject": subject, "version": version, "id": number, **self.schemas[number - 1]}


class Handler(http.server.BaseHTTPRequestHandler):
    """Handles one request."""

    registry = Registry()

    def answer(self, status, body):
        """Sends a JSON response."""
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def found(self, body, code, what):
        """Sends the body, or 404 if it is `None`."""
        if body is None:
            self.answer(404, {"error_code": code, "message": f"{what} not found."})
        else:
            self.answer(200, body)

    def is_refused(self):
        """Returns true if the registry is unavailable or the credentials are wrong, after sending the error."""
        if self.registry.is_unavailable:
            self.answer(503, {"error_code": 50003, "message": "Error while forwarding the request to the primary"})
            return True
        expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.headers.get("Authorization") != expected:
            self.answer(401, {"error_code": 401, "message": "Unauthorized"})
            return True
        return False

    def do_PUT(self):  # noqa: N802: the name is given by the library
        """Makes the registry unavailable or available, for the tests."""
        self.registry.is_unavailable = self.path == "/-/unavailable"
        self.answer(200, {})

    def do_GET(self):  # noqa: N802
        """Returns a schema by its id, or by subject and version."""
        path = urllib.parse.urlsplit(self.path).path
        if self.is_refused():
            return
        if match := re.fullmatch(r"/schemas/ids/(\d+)", path):
            self.found(self.registry.schema(int(match[1])), 40403, "Schema")
        elif match := re.fullmatch(r"/subjects/([^/]+)/versions/(\d+)", path):
            subject = urllib.parse.unquote(match[1])
            self.found(self.registry.version(subject, int(match[2])), 40402, "Version")
        else:
            self.answer(404, {"error_code": 404, "message": "HTTP 404 Not Found"})

    def do_POST(self):  # noqa: N802
        """Registers a schema, or looks it up."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        path = urllib.parse.urlsplit(self.path).path
        if self.is_refused():
            return
        if match := re.fullmatch(r"/subjects/([^/]+)/versions", path):
            self.answer(200, self.registry.register(urllib.parse.unquote(match[1]), body))
        elif match := re.fullmatch(r"/subjects/([^/]+)", path):
            self.found(self.registry.lookup(urllib.parse.unquote(match[1]), body), 40403, "Schema")
        else:
            self.answer(404, {"error_code": 404, "message": "HTTP 404 Not Found"})

    def log_message(self, *words):
        """Logs nothing, because the tests report errors."""


def main():
    """Serves until the input ends."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    draft = sys.argv[1] + ".draft"
    with open(draft, "w", encoding="utf-8") as file:
        json.dump({"url": f"http://127.0.0.1:{server.server_port}", "user": USER, "password": PASSWORD}, file)
    os.rename(draft, sys.argv[1])
    sys.stdin.read()


if __name__ == "__main__":
    main()
