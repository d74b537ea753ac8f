#!/usr/bin/env bash
# Installs all components of setup.sh that can be installed on this machine. If a component cannot be installed, the script writes
# the reason to .cache/missing/COMPONENT, and the tests that need it are skipped (tests/it/requirements.rs). With CI=true, a missing
# component is an error.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

mkdir -p .cache/missing
for component in python:venv jdbc:java kafka:kafka postgres:postgres mariadb:mariadb; do
  folder=.cache/${component#*:} component=${component%:*}
  missing=.cache/missing/$component
  if tests/clients/setup.sh "$component" 2> "$missing.log"; then
    rm -f "$missing"
  else
    cat "$missing.log" >&2
    [ "${CI:-}" != true ] || { echo "prepare: $component is missing, which is an error with CI=true" >&2; exit 1; }
    echo "prepare: the tests that need $component will be skipped" >&2
    tail -n 1 "$missing.log" > "$missing"
    # Mark an earlier installation as outdated, because the tests expect the current version.
    rm -f "$folder/.made-from"
  fi
  rm -f "$missing.log"
done
