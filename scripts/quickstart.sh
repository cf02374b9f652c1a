#!/usr/bin/env bash
# Sets everything up and searches for the best variant of configs/quickstart.yaml. Arguments go
# to `archbench tune`, whose last line is the path of the report. A second call reinstalls
# nothing and takes up the study where the first one left it.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/_environment.sh"

# shellcheck disable=SC2119 # the project alone, without an extra
prepare_environment
cd "$root"
exec "$venv/bin/archbench" tune configs/quickstart.yaml "$@" </dev/null
