#!/usr/bin/env bash
# Several "hosts" on one machine: network namespaces joined by a bridge, a Ray raylet in each.
#
#   namespaces.sh up [HOSTS] [bare]   three hosts by default; prints the address of the cluster;
#                              "bare": hosts without Ray, for scripts that start it themselves
#   namespaces.sh in N CMD...  runs a command on host N, with what it needs to join the cluster
#   namespaces.sh cut N        takes the link of host N down
#   namespaces.sh mend N       brings it back (Ray has given the host up by then: start it again)
#   namespaces.sh start N      ends what is left on host N, and starts its raylet again
#   namespaces.sh down         ends everything that runs in the namespaces, and removes them
#
# For root on Linux with iproute2, and Ray on the PATH. ARCHBENCH_NET names the set, so that
# several can stand side by side: it prefixes the namespaces, and ARCHBENCH_SUBNET (default 10.77.0)
# holds their addresses. ARCHBENCH_CLOCKS, if set, starts the clock of host N that many seconds
# ahead times N: hosts on one machine share a clock otherwise. Only what this script made is touched.
set -euo pipefail

net=${ARCHBENCH_NET:-ab}
subnet=${ARCHBENCH_SUBNET:-10.77.0}
cpus=${ARCHBENCH_CPUS:-2}
work=/tmp/archbench-namespaces-$net
port=6379

source "$(dirname -- "${BASH_SOURCE[0]}")/_ray.sh"
export RAY_AUTH_TOKEN_PATH=$work/token

inside() { # HOST COMMAND...
  local host=$1
  shift
  local -a clock=()
  if [ -n "${ARCHBENCH_CLOCKS:-}" ]; then
    clock=(unshare --fork --time --monotonic "$((host * ARCHBENCH_CLOCKS))" --)
  fi
  ip netns exec "$net$host" "${clock[@]}" "$@"
}

host_numbers() { # of the namespaces that stand
  ip netns list | sed -n "s/^$net\([0-9]\{1,3\}\)\( .*\)\?$/\1/p" | sort -n
}

raylet() { # HOST
  local host=$1
  local -a common=(--node-ip-address="$subnet.$host" --num-cpus="$cpus" --disable-usage-stats)
  common+=(--object-store-memory=100000000)
  if [ "$host" = 1 ]; then
    inside 1 ray start --head --port="$port" --include-dashboard=false --temp-dir="$work/ray" \
      "${common[@]}"
  else
    inside "$host" ray start --address="$subnet.1:$port" "${common[@]}"
  fi
}

up() { # COUNT [bare]
  local count=$1
  down
  mkdir -p "$work"
  (umask 077 && head -c 32 /dev/urandom | base64 | tr -d '=+/\n' >"$work/token")
  ip link add "${net}br" type bridge
  ip link set "${net}br" up
  for host in $(seq "$count"); do
    ip netns add "$net$host"
    ip link add "${net}v$host" type veth peer name eth0 netns "$net$host"
    ip link set "${net}v$host" master "${net}br" up
    ip -n "$net$host" addr add "$subnet.$host/24" dev eth0
    ip -n "$net$host" link set eth0 up
    ip -n "$net$host" link set lo up
  done
  [ "${2:-}" = bare ] && return
  for host in $(seq "$count"); do
    raylet "$host" >"$work/host$host.log" 2>&1 || {
      cat "$work/host$host.log" >&2
      down
      exit 3
    }
  done
  echo "$subnet.1:$port"
}

end_all_on() { # HOST
  # Only what runs in our namespaces.
  for process in $(ip netns pids "$net$1"); do
    kill -KILL "$process" 2>/dev/null || true
  done
}

down() {
  for host in $(host_numbers); do
    end_all_on "$host"
    # The kernel takes a namespace's links away when the last process in it has ended, which may
    # be later; a set of the same name could not be made until then.
    ip link del "${net}v$host" 2>/dev/null || true
    ip netns del "$net$host" || true
  done
  ip link del "${net}br" 2>/dev/null || true
  rm -rf "$work"
}

command=${1:-}
shift || true
case "$command" in
  up) up "${1:-3}" "${2:-}" ;;
  in)
    host=$1
    shift
    RAY_ADDRESS=$subnet.1:$port inside "$host" "$@"
    ;;
  cut) ip -n "$net$1" link set eth0 down ;;
  mend) ip -n "$net$1" link set eth0 up ;;
  start)
    end_all_on "$1"
    raylet "$1"
    ;;
  down) down ;;
  *)
    sed -n '2,18s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
