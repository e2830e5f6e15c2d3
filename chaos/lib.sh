# Shared by the scripts beside it: which cluster is up, and how to reach into it. Sourced, not run.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
project=holdfast

fail() {
    printf '%s: %s\n' "$(basename "$0")" "$1" >&2
    exit "${2:-1}"
}

# Checks the zone named on the command line.
known_zone() {
    case ${1:-} in
        a | b | c) ;;
        *) fail "name a zone: $(basename "$0") a, b or c" 64 ;;
    esac
}

# Compose as a plugin, or as a program of its own.
compose() {
    if docker compose version >/dev/null 2>&1; then
        docker compose -p "$project" -f "$root/deploy/compose.yaml" "$@"
    else
        docker-compose -p "$project" -f "$root/deploy/compose.yaml" "$@"
    fi
}

# Prints local or compose; fails where neither is up.
which_cluster() {
    if [[ -e ${HOLDFAST_RUN:-$root/run/local}/up ]]; then
        echo local
    elif command -v docker >/dev/null 2>&1 &&
        [[ -n $(docker ps -aq --filter "label=com.docker.compose.project=$project" 2>/dev/null) ]]; then
        echo compose
    else
        fail "no cluster is up: start one with 'deploy/local/cluster up' (processes) or 'make up' (containers)" 69
    fi
}

# Waits until both containers of a zone are healthy.
healthy() { # zone
    local deadline=$((SECONDS + 60)) states
    while ((SECONDS < deadline)); do
        states=$(docker ps --filter "label=com.docker.compose.project=$project" --filter "label=holdfast.zone=$1" \
            --format '{{.Status}}')
        [[ $(grep -c '(healthy)' <<<"$states") == 2 ]] && return
        sleep 0.2
    done
    return 1
}
