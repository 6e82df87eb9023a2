#!/bin/sh
# Brings a backup back. Arguments go to `fingers restore`; paths start at the repository.
set -e
cd "$(dirname -- "$(readlink -f -- "$0")")/.."
exec ./run fingers restore "$@"
