"""The sample rows, which every suite expects to find.

The tenants differ in size: `acme` is large, `globex` is small, and `initech` has no rows.
"""

import datetime
import json
import urllib.request

ROWS = {"acme": 1_000, "globex": 37, "initech": 0}
START = datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc)
NAMES = ["north", "south", "east", "west", "Zürich", "東京"]


def sample(tenant, index):
    """Returns row `index` of a tenant in the table `samples`. Every seventh row has values only in its key columns."""
    row = {"id": f"{tenant}-{index:05}", "at": START + datetime.timedelta(minutes=index)}
    if index % 7 != 3:
        row |= {
            "flag": index % 2 == 0,
            "small": index,
            "big": index * 10_000_000_000,
            "ratio32": index / 4,
            "ratio": index / 8,
            "label": NAMES[index % len(NAMES)],
            "day": datetime.date(2024, 1, 1) + datetime.timedelta(days=index % 366),
        }
    return row


def samples(tenant):
    """Returns all rows of a tenant, ordered by id."""
    return [sample(tenant, index) for index in range(ROWS[tenant])]


def post(facts, table, token, body, content_type="application/x-ndjson"):
    """Sends a body over HTTP and returns the receipt."""
    request = urllib.request.Request(
        f"http://{facts['http']}/v1/tables/{table}/events",
        data=body,
        headers={"authorization": f"Bearer {token}", "content-type": content_type},
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.load(response)


def ndjson(rows):
    """Encodes rows as NDJSON."""
    return "\n".join(json.dumps(row, default=lambda value: value.isoformat()) for row in rows).encode()
