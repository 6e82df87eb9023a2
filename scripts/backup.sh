#!/bin/sh
# Backs up all that MLflow holds. Arguments go to `fingers backup`; paths start at the repository.
set -e
cd "$(dirname -- "$(readlink -f -- "$0")")/.."
exec ./run fingers backup "$@"
