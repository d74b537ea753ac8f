"""Sends the sample rows over HTTP. This suite runs before the others."""

import rows
from checks import check, equal, main


@check
def feed_samples(facts):
    for tenant, count in rows.ROWS.items():
        if count:
            receipt = rows.post(facts, "samples", facts["tokens"][tenant], rows.ndjson(rows.samples(tenant)))
            equal((receipt["accepted"], receipt["duplicate"], receipt["rejected"]), (count, 0, 0), receipt)


@check
def feed_tables_with_similar_names(facts):
    """Two tables whose names both match the pattern `net_flow` if `_` is a wildcard."""
    for table in ("net_flow", "net2flow"):
        row = {"id": "1", "at": rows.START, f"of_{table}": 1}
        equal(rows.post(facts, table, facts["tokens"]["acme"], rows.ndjson([row]))["accepted"], 1, table)


@check
def feed_again_stores_nothing(facts):
    receipt = rows.post(facts, "samples", facts["tokens"]["globex"], rows.ndjson(rows.samples("globex")))
    equal((receipt["accepted"], receipt["duplicate"]), (0, rows.ROWS["globex"]), receipt)


if __name__ == "__main__":
    main()
