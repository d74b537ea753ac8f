#!/usr/bin/env bash
# Installs every part of setup.sh that can be installed on this machine. Why a part is missing is written to
# .cache/missing/PART, and the tests that need it are skipped (tests/it/needs.rs). With CI=true a missing part is an error.
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
    [ "${CI:-}" != true ] || { echo "prepare: $part is missing, and CI skips nothing" >&2; exit 1; }
    echo "prepare: the tests that need $part will be skipped" >&2
    tail -n 1 "$missing.log" > "$missing"
    # What is left of an earlier installation is not what the tests expect.
    rm -f "$folder/.made-from"
  fi
  rm -f "$missing.log"
done
