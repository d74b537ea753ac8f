#!/usr/bin/env bash
# Prints which tests were skipped in the last run, why, and how many. With CI=true such a test has failed already.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

list=.cache/skipped.txt
[ -s $list ] || { echo "make: no test was skipped"; exit 0; }
echo "make: $(sort -u $list | wc -l) tests were skipped:"
sort -u $list | sed 's/^/  /'
