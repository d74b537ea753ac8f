#!/usr/bin/env bash
# Prints the number of tests that were skipped in the last run, and lists them with the reasons. With CI=true, such tests
# fail instead.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

list=.cache/skipped.txt
[ -s $list ] || { echo "make: no test was skipped"; exit 0; }
echo "make: $(sort -u $list | wc -l) tests were skipped:"
sort -u $list | sed 's/^/  /'
