#!/bin/sh
# Stops the servers of this machine; what they hold stays. Arguments go to `fingers down`.
set -e
cd "$(dirname -- "$(readlink -f -- "$0")")/.."
exec ./run fingers down "$@"
