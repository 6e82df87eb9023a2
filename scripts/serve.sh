#!/bin/sh
# Tests what serving needs, prints the addresses, then serves. Arguments go to `fingers serve`.
set -e
cd "$(dirname -- "$(readlink -f -- "$0")")/.."
./run fingers doctor python disk .env model
./run python scripts/addresses.py "$@"
exec ./run fingers serve "$@"
