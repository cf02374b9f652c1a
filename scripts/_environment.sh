# shellcheck shell=bash
# Sourced by the other scripts: the project's own virtual environment in .venv.
#
#   prepare_environment [EXTRA]   creates .venv and installs the project with EXTRA, once;
#                                 again only when pyproject.toml, constraints.txt, the
#                                 interpreter or the place of the checkout has changed
#
# Defines root (the checkout), venv and stamps. PYTHON names an interpreter to prefer. As root,
# a missing system package is installed with apt-get unless ARCHBENCH_APT=0.

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)"
venv="$root/.venv"
stamps="$venv/.archbench"

say() { printf '== %s\n' "$*" >&2; }

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 3
}

may_use_apt() {
  [[ "${ARCHBENCH_APT:-1}" != 0 && "$(id -u)" == 0 ]] && command -v apt-get >/dev/null
}

apt_install() {
  say "installing system packages: $*"
  # The package lists of a fresh container are empty or old; a failed update is not the end.
  apt-get update -qq </dev/null >&2 || true
  DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "$@" </dev/null >&2
}

# Prints the first interpreter that runs and is new enough. Naming 3.11 first prefers what the
# constraints were tested with.
find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3.11 python3.12 python3.13 python3.14 python3; do
    if [[ -n "$candidate" ]] && "$candidate" -c \
      'import sys; sys.exit(sys.version_info < (3, 11))' </dev/null >/dev/null 2>&1; then
      "$candidate" -c 'import sys; print(sys.executable)' </dev/null
      return
    fi
  done
  return 1
}

# Debian and Ubuntu split ensurepip off Python; without it a virtual environment has no pip.
require_venv() {
  local python="$1" package
  "$python" -c 'import ensurepip, venv' 2>/dev/null && return
  package="$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
  if may_use_apt && apt_install "$package" &&
    "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    return
  fi
  fail "$python cannot create virtual environments; install it: sudo apt-get install $package"
}

create_venv() {
  local python
  if ! python="$(find_python)" && may_use_apt; then
    apt_install python3 python3-venv || true
    python="$(find_python)" || true
  fi
  [[ -n "$python" ]] ||
    fail "Python 3.11 or newer is needed: sudo apt-get install python3 python3-venv"
  require_venv "$python"
  say "creating .venv with $("$python" --version)"
  "$python" -m venv --clear "$venv"
  mkdir -p "$stamps"
  printf '%s\n' "$root" >"$stamps/place"
}

# Scripts in a virtual environment hold absolute paths, so a moved checkout needs a new one.
venv_works() {
  [[ -f "$stamps/place" && "$(<"$stamps/place")" == "$root" ]] &&
    "$venv/bin/python" -c 'import pip' </dev/null >/dev/null 2>&1
}

environment_key() {
  {
    "$venv/bin/python" -VV
    cat "$root/pyproject.toml" "$root/constraints.txt"
  } | sha256sum | cut -d ' ' -f 1
}

# An installed "test" has everything that the plain project needs.
is_installed() {
  local key="$1" name
  shift
  for name in "$@"; do
    [[ -f "$stamps/$name" && "$(<"$stamps/$name")" == "$key" ]] && return
  done
  return 1
}

prepare_environment() {
  local extra="${1:-}" key
  venv_works || create_venv
  key="$(environment_key)"
  is_installed "$key" "${extra:-core}" test && return
  say "installing archbench${extra:+[$extra]} into .venv; the first time takes a few minutes"
  rm -f "$stamps/core" "$stamps/test"
  "$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-input \
    --constraint "$root/constraints.txt" --editable "$root${extra:+[$extra]}" </dev/null >&2 ||
    fail "the installation failed; pip's message above says why"
  printf '%s\n' "$key" >"$stamps/${extra:-core}"
}
