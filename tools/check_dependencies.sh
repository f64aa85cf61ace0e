#!/usr/bin/env bash
# Proves the dependency rule of ARCHITECTURE.md from what Cargo resolves.
set -euo pipefail
cd "$(dirname "$0")/.."

# must_lack PATTERN WHY CARGO-TREE-ARGUMENTS...
must_lack() {
    local pattern=$1 why=$2 tree
    shift 2
    tree=$(cargo tree --locked "$@")
    [ -n "$tree" ] || { echo "cargo tree $* printed nothing" >&2; exit 1; }
    if grep -E "$pattern" <<<"$tree"; then
        echo "$why" >&2
        exit 1
    fi
}

must_lack '(pyo3|axum|hyper|automation-(py|http)) v' 'automation-core must not depend on these' \
    -p automation-core -e normal --all-features
must_lack '(pyo3|automation-py) v' 'automation-http must not depend on these' \
    -p automation-http -e normal --all-features
must_lack 'serde_json feature "(arbitrary_precision|preserve_order)"' \
    'these features of serde_json would change the JSON profile of every user' \
    --workspace -e features -i serde_json
echo 'dependency rule: ok'
