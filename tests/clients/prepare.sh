#!/usr/bin/env bash
# Installs the parts of setup.sh that can be installed on this machine. For a part that cannot, writes the reason to
# .cache/missing/PART, and the tests that need the part are skipped (tests/it/needs.rs). With CI=true a missing part is an error.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

mkdir -p .cache/missing
for part in python:venv jdbc:java kafka:kafka postgres:postgres; do
  folder=.cache/${part#*:} part=${part%:*}
  missing=.cache/missing/$part
  if tests/clients/setup.sh "$part" 2> "$missing.log"; then
    rm -f "$missing"
  else
    cat "$missing.log" >&2
    [ "${CI:-}" != true ] || { echo "prepare: $part is missing, which is an error with CI=true" >&2; exit 1; }
    echo "prepare: the tests that need $part will be skipped" >&2
    tail -n 1 "$missing.log" > "$missing"
    # Mark an earlier installation as outdated: the tests expect the current version.
    rm -f "$folder/.made-from"
  fi
  rm -f "$missing.log"
done
