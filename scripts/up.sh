#!/bin/sh
# Starts the servers of this machine. Arguments go to `fingers up`.
set -e
cd "$(dirname -- "$(readlink -f -- "$0")")/.."
exec ./run fingers up "$@"
