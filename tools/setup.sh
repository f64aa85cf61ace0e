#!/usr/bin/env bash
# Checks what the build needs, installs what it may, and names exactly what is missing.
# Usage: tools/setup.sh run|test   Writes target/setup.mk (which Python is embedded) for the Makefile.
set -euo pipefail
cd "$(dirname "$0")/.."
purpose=${1:-run}

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# Installs Debian packages where that is allowed; otherwise says how.
updated=no
install() {
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        say "installing $*"
        [ "$updated" = yes ] || apt-get update -qq >/dev/null 2>&1 || say "apt-get update failed; trying with the present lists"
        updated=yes
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null ||
            fail "apt-get install $* failed"
    else
        fail "missing: $*. On Debian, as root: apt-get install $*"
    fi
}

# The tests start servers of their own; Debian's packages would start one for the whole machine.
install_without_starting() {
    local policy=/usr/sbin/policy-rc.d
    if [ "$(id -u)" != 0 ] || [ -e $policy ]; then
        install "$@"
        return
    fi
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
    install "$@"
    rm -f $policy
}

# --- Rust: the version that Cargo.toml states
needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
[ -n "$needed" ] || fail "Cargo.toml states no rust-version"
# One of rustup goes before one of the system, which is often too old.
[ ! -x "${HOME:-}/.cargo/bin/cargo" ] || PATH="$HOME/.cargo/bin:$PATH"
command -v cargo >/dev/null || fail "cargo is missing: install Rust $needed or later, see https://rustup.rs"
found=$(rustc --version | sed 's/rustc \([0-9.]*\).*/\1/')
[ "$(printf '%s\n%s\n' "$needed" "$found" | sort -V | head -n 1)" = "$needed" ] ||
    fail "rustc is $found and $needed or later is needed: rustup update"
if [ "$purpose" = test ]; then
    cargo fmt --version >/dev/null 2>&1 || fail "rustfmt is missing: rustup component add rustfmt"
    cargo clippy --version >/dev/null 2>&1 || fail "clippy is missing: rustup component add clippy"
fi

# --- a C compiler, for the bundled SQLite
command -v cc >/dev/null || install gcc libc6-dev

# --- a Python that can be embedded
python=""
[ -z "${PYTHON:-}" ] || command -v "$PYTHON" >/dev/null || fail "PYTHON=$PYTHON is not a program"
find_python() {
    local candidate answer
    reasons=""
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python3.10 python3.9 /usr/bin/python3; do
        command -v "$candidate" >/dev/null || continue
        if answer=$("$candidate" -I tools/check_python.py 2>&1); then
            python=$answer
            return 0
        fi
        reasons="$reasons
  $candidate: $answer"
        [ -z "${PYTHON:-}" ] || fail "PYTHON=$PYTHON can't be embedded: $answer"
    done
    return 1
}
if ! find_python; then
    say "no Python on PATH can be embedded:${reasons:- none was found}"
    install python3 python3-dev libpython3-dev
    find_python || fail "still no Python can be embedded:$reasons"
fi
say "embedding $("$python" -c 'import sys; print("Python %d.%d.%d" % sys.version_info[:3])') of $python"

# --- what only the tests need
if [ "$purpose" = test ]; then
    "$python" -c 'import ensurepip, venv' 2>/dev/null || install python3-venv
    command -v curl >/dev/null || install curl
    command -v slapd >/dev/null || [ -x /usr/sbin/slapd ] || install_without_starting slapd
    command -v ldappasswd >/dev/null || install ldap-utils
    # And PostgreSQL servers of their own, as an unprivileged user.
    command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || install_without_starting postgresql
    command -v openssl >/dev/null || install openssl
    venv=target/venv
    stamp="$python $(cat scripts/tests/requirements.txt automation-py/pytests/requirements.txt 2>/dev/null | cksum)"
    if [ ! -x $venv/bin/python ] || [ "$(cat $venv/stamp 2>/dev/null)" != "$stamp" ]; then
        say "installing the Python test tools into $venv"
        rm -rf $venv
        "$python" -m venv $venv
        $venv/bin/python -m pip install -q --disable-pip-version-check \
            -r scripts/tests/requirements.txt -r automation-py/pytests/requirements.txt
        printf '%s' "$stamp" >$venv/stamp
    fi
fi

mkdir -p target
printf 'PYO3_PYTHON := %s\n' "$python" >target/setup.mk.new
cmp -s target/setup.mk.new target/setup.mk || mv target/setup.mk.new target/setup.mk
rm -f target/setup.mk.new
