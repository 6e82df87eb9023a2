#!/bin/sh
# Starts the servers of this machine, then runs every stage. Arguments go to `dvc repro`.
set -e
cd "$(dirname -- "$(readlink -f -- "$0")")/.."
./run fingers up
exec ./run dvc repro "$@"
