#!/usr/bin/env bash
# Puts the importable package `automation` together in target/module, for tests and for trying it out:
#   PYTHONPATH=target/module python3 -c 'import automation'
set -euo pipefail
cd "$(dirname "$0")/.."
built=${CARGO_TARGET_DIR:-target}/${1:-debug}/libautomation_py.so
[ -f "$built" ] || { printf '%s is absent: cargo build -p automation-py\n' "$built" >&2; exit 1; }
rm -rf target/module
mkdir -p target/module
cp -r automation-py/python/automation target/module/automation
cp "$built" target/module/automation/_automation.so
