# A cluster of six processes of one's own, for scripts: other ports and another folder than deploy/local/cluster uses.
# Sourced, not run.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

say() {
    printf '%s: %s\n' "$(basename "$0")" "$1" >&2
}

fail() {
    say "$1"
    exit "${2:-1}"
}

# Builds the binary unless HOLDFAST_BIN names one, and exports what the other scripts need.
prepare() { # port shift
    cd "$root"
    if [[ -z ${HOLDFAST_BIN:-} ]]; then
        cargo build --release --quiet -p holdfast-cli
        HOLDFAST_BIN=$root/${CARGO_TARGET_DIR:-target}/release/holdfast
    fi
    export HOLDFAST_BIN HOLDFAST_PORT_SHIFT=$1
    mkdir -p run
    work=$(mktemp -d "$root/run/$(basename "$0").XXXXXX")
    export HOLDFAST_RUN=$work/cluster
    local first=$((7070 + $1))
    export HOLDFAST_BOOTSTRAP=127.0.0.1:$first,127.0.0.1:$((first + 1)),127.0.0.1:$((first + 2))
    passed=0
    failed=0
    trap finish EXIT
}

holdfast() {
    "$HOLDFAST_BIN" "$@"
}

cluster() {
    "$root/deploy/local/cluster" "$@" >&2
}

# One check: counts, and says what was compared.
check() { # name command...
    local name=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
        say "ok: $name"
    else
        failed=$((failed + 1))
        say "FAILED: $name"
    fi
}

# Waits until the cluster tolerates the loss of any zone again.
redundant() { # seconds
    local deadline=$((SECONDS + $1))
    until holdfast cluster status >"$work/status" 2>&1; do
        if ((SECONDS >= deadline)); then
            cat "$work/status" >&2
            return 1
        fi
        sleep 0.2
    done
}

# Whether two files hold the same lines, each as often.
same_lines() { # expected actual
    LC_ALL=C sort --parallel=2 "$1" >"$work/expected.sorted"
    LC_ALL=C sort --parallel=2 "$2" >"$work/actual.sorted"
    cmp "$work/expected.sorted" "$work/actual.sorted" && return 0
    say "lines missing: $(LC_ALL=C comm -23 "$work/expected.sorted" "$work/actual.sorted" | wc -l)"
    say "lines too many: $(LC_ALL=C comm -13 "$work/expected.sorted" "$work/actual.sorted" | wc -l)"
    return 1
}

# Stops the cluster; keeps the files of a failure for reading; prints the closing line.
finish() {
    local code=$?
    trap - EXIT
    [[ -z ${feeder:-} ]] || kill "$feeder" 2>/dev/null || true
    [[ ! -e $HOLDFAST_RUN/up ]] || cluster down || failed=$((failed + 1))
    if ((code != 0)); then failed=$((failed + 1)); fi
    if ((failed == 0)); then
        rm -rf "$work"
    else
        say "data and logs of the failure stay in $work"
    fi
    echo "$(basename "$0"): $passed passed, $failed failed"
    ((failed == 0)) || exit 1
}
