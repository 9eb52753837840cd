#!/usr/bin/env bash
# Makes .venv and installs a lock file and PixyProxy itself into it.
set -euo pipefail

lock=$1
if [ ! -x .venv/bin/pip ]; then
  echo "Making the environment in .venv …"
  if ! python3 -m venv .venv 2>/dev/null; then
    # Debian ships venv's other half as a package of its own.
    as_root=$([ "$(id -u)" -eq 0 ] || echo "sudo -n")
    if ! { $as_root apt-get update -qq && $as_root apt-get install -y -qq python3-venv; } >/dev/null 2>&1; then
      echo "Python's venv module is missing. Install it: apt-get install python3-venv" >&2
      exit 1
    fi
    python3 -m venv --clear .venv
  fi
fi
echo "Installing $lock …"
.venv/bin/pip install -qq --disable-pip-version-check --require-hashes -r "$lock"
.venv/bin/pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
