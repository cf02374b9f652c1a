#!/usr/bin/env bash
# One host of a cluster: what start.sh and ray-up.yaml run on it, from the files they brought.
#
#   _host.sh prepare          takes the files beside it and the token on stdin, and installs
#   _host.sh install          installs what the checkout needs into its .venv
#   _host.sh start OWN HEAD PORT   starts Ray for the address OWN; it is the head if both agree
#   _host.sh stop             ends the Ray that "start" started, and nothing else
#   _host.sh status           says whether it runs
#
# ARCHBENCH_PYTHON (python3.11) makes the environment; ARCHBENCH_BIN is one that is ready.
set -euo pipefail

checkout=$HOME/.archbench/checkout
session_file=$HOME/.archbench/session
python=${ARCHBENCH_PYTHON:-python3.11}
bin=${ARCHBENCH_BIN:-$checkout/.venv/bin}
export RAY_AUTH_TOKEN_PATH=$HOME/.ray/auth_token
unset RAY_AUTH_TOKEN

here="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)"
source "$here/_ray.sh"
source "$here/../_environment.sh"

folder_of() { # OWN: where Ray keeps its sockets, which must have short names, and its logs
  printf '/tmp/archbench-%s-%s' "$UID" "$1"
}

# Prints the number of our session of processes if any of it runs. All that "ray start" leaves
# behind stays in the session of that command. Numbers are used again: ours names our folder.
session() {
  local number folder
  [ -f "$session_file" ] || return
  read -r number folder <"$session_file"
  pgrep --session "$number" --full -- "=$folder/" >/dev/null && echo "$number"
}

take_token() {
  local token
  token=$(cat)
  [ -n "$token" ] || fail "no token arrived"
  if [ -s "$RAY_AUTH_TOKEN_PATH" ]; then
    [ "$(<"$RAY_AUTH_TOKEN_PATH")" = "$token" ] ||
      fail "$RAY_AUTH_TOKEN_PATH holds another token: remove it here, or use it for the cluster"
  else
    (umask 077 && mkdir -p "$HOME/.ray" && printf '%s' "$token" >"$RAY_AUTH_TOKEN_PATH")
  fi
  chmod 600 "$RAY_AUTH_TOKEN_PATH"
}

take_files() {
  [ ! -d "$checkout/.venv" ] || mv "$checkout/.venv" "$root"
  rm -rf "$checkout"
  mv "$root" "$checkout"
}

minor_version() { # PYTHON
  "$1" -c 'import sys; print(*sys.version_info[:2], sep=".")' 2>/dev/null
}

install_here() {
  if [ -n "${ARCHBENCH_BIN:-}" ]; then
    [[ -x "$bin/ray" && -x "$bin/archbench" ]] || fail "no ray and archbench in $bin"
    return
  fi
  if ! minor_version "$python" >/dev/null; then
    { may_use_apt && apt_install "$python" "$python-venv"; } ||
      fail "no $python here; install it, or name one that all hosts have: ARCHBENCH_PYTHON"
  fi
  [ "$(minor_version "$venv/bin/python")" = "$(minor_version "$python")" ] || rm -rf "$venv"
  # shellcheck disable=SC2119 # the project alone, without an extra
  PYTHON=$python prepare_environment
}

prepare() {
  command -v pgrep >/dev/null || fail "no pgrep here: sudo apt-get install procps"
  [ -z "$(session)" ] || fail "archbench's Ray runs here already; end it first: start.sh down"
  take_token
  take_files
  exec bash "$checkout/scripts/cluster/_host.sh" install
}

start() { # OWN HEAD PORT
  local own=$1 head=$2 port=$3 folder
  folder=$(folder_of "$own")
  local -a options=(--node-ip-address="$own" --temp-dir="$folder" --disable-usage-stats)
  if [ "$own" = "$head" ]; then
    options+=(--head --port="$port" --include-dashboard=false)
  else
    options+=(--address="$head:$port")
  fi
  rm -rf "$folder"
  export PATH="$bin:$PATH"
  # shellcheck disable=SC2016 # the inner shell's own number
  setsid --wait bash -c 'echo "$$ $1" >"$0" && shift && exec timeout --kill-after=5 60 "$@"' \
    "$session_file" "$folder" ray start "${options[@]}" </dev/null
}

stop() {
  local number
  number=$(session) || return 0
  # Again until nobody is left, as one may start another meanwhile.
  while pkill -KILL --session "$number"; do sleep 0.1; done
  rm -f "$session_file"
}

command=${1:-}
shift || true
case "$command" in
  prepare) prepare ;;
  install) install_here ;;
  start) start "$@" ;;
  stop) stop ;;
  status) if [ -n "$(session)" ]; then echo "Ray runs"; else echo "no Ray of archbench"; fi ;;
  *)
    sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 2
    ;;
esac
