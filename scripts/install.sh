#!/usr/bin/env bash
# Install a lock file and PixyProxy itself into the virtual environment $VENV; create it if it is missing.
set -euo pipefail

lock=$1
venv=${VENV:-.venv}
python=${PYTHON:-python3}

fail() {
  echo "$1" >&2
  exit 1
}

if [ ! -x "$venv/bin/pip" ]; then
  found=$("$python" --version 2>&1) || fail "Cannot run $python: $found. Install Python 3.11 or newer, or name it: make install PYTHON=…"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "PixyProxy needs Python 3.11 or newer; $python is $found. Name a newer one: make install PYTHON=python3.11"
  if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    # Debian packages venv and pip separately from Python.
    as_root=$([ "$(id -u)" -eq 0 ] || echo "sudo -n")
    output=$({ $as_root apt-get update -qq && $as_root apt-get install -y -qq python3-venv; } 2>&1) ||
      fail "$output"$'\n'"$python has no venv module. Install it: apt-get install python3-venv"
  fi
  echo "Creating the environment in $venv …"
  output=$("$python" -m venv --clear "$venv" 2>&1) || fail "$output"$'\n'"Cannot create the environment in $venv."
  if [ -n "${PIP_VERSION:-}" ]; then
    "$venv/bin/pip" install -qq --disable-pip-version-check "pip==$PIP_VERSION"
  fi
fi
echo "Installing $lock …"
# The lock lists every package. Without --no-deps pip would resolve again, and an extra (coverage[toml]) could require a
# newer release than the lock has a hash for.
"$venv/bin/pip" install -qq --disable-pip-version-check --no-deps --require-hashes -r "$lock"
"$venv/bin/pip" install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
output=$("$venv/bin/pip" check --disable-pip-version-check 2>&1) || fail "$output"$'\n'"$lock is not complete: run make lock."
