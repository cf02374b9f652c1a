#!/usr/bin/env bash
# A Ray cluster of machines that ssh reaches, with archbench installed on all of them.
#
#   start.sh up HEAD [WORKER...]       installs and starts; each host is [user@]IPv4-address
#   start.sh status HEAD [WORKER...]   says where it runs; exits 1 if anywhere it does not
#   start.sh down HEAD [WORKER...]     ends the Ray that "up" started there, and nothing else
#
# The addresses are those by which the hosts reach each other. Files go to ~/.archbench, the token
# to ~/.ray/auth_token; it comes from there on this machine, or from RAY_AUTH_TOKEN_PATH, and is
# made if there is none. Exit codes: 2 wrong use, 3 a host failed, whose name is said.
#
#   ARCHBENCH_PYTHON   interpreter of all hosts (python3.11, which the pins were tested with)
#   ARCHBENCH_BIN      a folder on the hosts with ray and archbench ready: nothing is installed
#   ARCHBENCH_PORT     of the head (6379)
#   ARCHBENCH_SSH      instead of: ssh -o BatchMode=yes -o ConnectTimeout=10
set -euo pipefail

here="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)"
root="$(cd -- "$here/../.." && pwd -P)"
# What the hosts need of the checkout.
files=(LICENSE README.md configs constraints.txt orchestrator pyproject.toml scripts)
port=${ARCHBENCH_PORT:-6379}
token=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}
read -ra ssh <<<"${ARCHBENCH_SSH:-ssh -o BatchMode=yes -o ConnectTimeout=10}"

usage() {
  [ -z "${1:-}" ] || printf 'error: %s\n' "$1" >&2
  sed -n '2,16s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
}

say() { printf '== %s\n' "$*" >&2; }

on() { # HOST SECONDS COMMAND: in a shell there, which ends with its deadline
  timeout --kill-after=5 "$2" "${ssh[@]}" "$1" "$3"
}

host_script() { # FOLDER ARGUMENT...: the command that runs _host.sh out of a folder of ~/.archbench
  local folder=$1
  shift
  printf 'env ARCHBENCH_BIN=%q ARCHBENCH_PYTHON=%q bash .archbench/%s/scripts/cluster/_host.sh%s' \
    "${ARCHBENCH_BIN:-}" "${ARCHBENCH_PYTHON:-}" "$folder" "$(printf ' %q' "$@")"
}

bring() {
  on "$1" 120 'rm -rf .archbench/new && mkdir -p .archbench/new && tar -xzC .archbench/new' \
    <"$work/files.tgz"
}

prepare() { on "$1" 1800 "$(host_script new prepare)" <"$token"; }

start() { on "$1" 90 "$(host_script checkout start "${1##*@}" "${head##*@}" "$port")"; }

stop() { on "$1" 60 "[ ! -e .archbench/checkout ] || $(host_script checkout stop)"; }

status() {
  on "$1" 30 "[ ! -e .archbench/checkout ] && echo 'nothing installed' ||
    $(host_script checkout status)"
}

everywhere() { # STEP HOST...: the step on all hosts at once; fails with what the failed ones said
  local step=$1 host code failed=0
  shift
  local -A jobs=()
  for host in "$@"; do
    "$step" "$host" >"$work/$host" 2>&1 &
    jobs[$host]=$!
  done
  for host in "$@"; do
    code=0
    wait "${jobs[$host]}" || code=$?
    [ "$code" = 0 ] && continue
    failed=1
    case "$code" in
      124 | 137) code="no end in time" ;;
      *) code="exit code $code" ;;
    esac
    printf 'error: %s: %s failed (%s)\n' "$host" "$step" "$code" >&2
    tail -n 15 "$work/$host" | sed 's/^/  | /' >&2
  done
  return "$failed"
}

make_token() {
  say "a new token: $token"
  (umask 077 && mkdir -p "$(dirname -- "$token")" &&
    head -c 32 /dev/urandom | base64 | tr -d '=+/\n' >"$token")
}

up() {
  [ -s "$token" ] || make_token
  tar -C "$root" -cz --exclude=__pycache__ -f "$work/files.tgz" "${files[@]}"
  say "bringing the files"
  everywhere bring "$@" || exit 3
  say "installing; the first time takes some minutes"
  everywhere prepare "$@" || exit 3
  say "starting Ray"
  if ! { everywhere start "$head" && everywhere start "${@:2}"; }; then
    everywhere stop "$@" || true
    exit 3
  fi
  local bin=${ARCHBENCH_BIN:-\~/.archbench/checkout/.venv/bin}
  echo "$# hosts are up. Next, on ${head##*@}, where archbench runs from now on:"
  echo "  export RAY_AUTH_MODE=token PATH=$bin:\$PATH"
  echo "  archbench doctor --address ${head##*@}:$port"
}

tell() {
  everywhere status "$@" || exit 3
  local host code=0
  for host in "$@"; do
    printf '%s: %s\n' "$host" "$(<"$work/$host")"
    grep -qx "Ray runs" "$work/$host" || code=1
  done
  exit "$code"
}

command=${1:-}
head=${2:-}
case "$command" in
  up | status | down) shift ;;
  *) usage ;;
esac
[ $# -gt 0 ] || usage "no host is named"
for host in "$@"; do
  [[ "$host" =~ ^([A-Za-z0-9_][A-Za-z0-9._-]*@)?([0-9]{1,3}\.){3}[0-9]{1,3}$ ]] ||
    usage "'$host' is not [user@]IPv4-address"
done
[ -z "$(printf '%s\n' "${@##*@}" | sort | uniq -d)" ] || usage "a host is named twice"

work=$(mktemp -d)
trap 'rm -rf "$work"; jobs -p | xargs -r kill 2>/dev/null || true' EXIT
case "$command" in
  up) up "$@" ;;
  status) tell "$@" ;;
  down) everywhere stop "$@" || exit 3 ;;
esac
