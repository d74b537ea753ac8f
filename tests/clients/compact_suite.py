"""Rewrites the files of a table with delta-rs (`OPTIMIZE`) while servers write to it."""

import time

import deltalake

from checks import check, main

# The number of rewrites that must succeed.
REWRITES = 12
SECONDS_MAX = 300


@check
def files_are_rewritten_beside_ingest(facts):
    """Compacts the table again and again. A rewrite fails if a server has created the same version, and is repeated."""
    until, rewrites, conflicts, files = time.monotonic() + SECONDS_MAX, 0, 0, 0
    while rewrites < REWRITES:
        assert time.monotonic() < until, f"only {rewrites} rewrites, {conflicts} conflicts"
        table = deltalake.DeltaTable(f"{facts['lake']}/samples")
        try:
            removed = table.optimize.compact(max_concurrent_tasks=1)["numFilesRemoved"]
        except deltalake.exceptions.CommitFailedError:
            conflicts += 1
            continue
        rewrites += removed > 0
        files += removed
    return f"{rewrites} rewrites of {files} files, {conflicts} conflicts"


if __name__ == "__main__":
    main()
