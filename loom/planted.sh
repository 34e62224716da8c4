#!/usr/bin/env bash
#
# Do the models find faults? Each patch in planted/ plants one; the models that it names must fail with it.
#
#   loom/planted.sh              every fault, against the models it names
#   loom/planted.sh NAME..       only these
#   loom/planted.sh --all [..]   against all models, and tells which catch it besides
#
# Works on a copy in the build folder. Fails if a fault is not caught, does not apply, or does not compile, and if a
# model fails without one.

set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-$PWD/target/loom}
copy=$target/planted
log=$target/planted.log
export CARGO_TARGET_DIR=$target RUSTFLAGS="--cfg mainstay_loom" CARGO_INCREMENTAL=0 RUST_BACKTRACE=0
# Every fault shows with so few. The ordinary run goes further.
export LOOM_MAX_PREEMPTIONS=2

fail() {
    printf 'failed: %s\n' "$*" >&2
    exit 1
}

# Without -p: the copies are newer than what was built last, so that cargo sees them. Under a name of its own, because
# cargo tells packages apart by name, not by folder: what is built here must not pass for the real models.
renew_copy() {
    rm -rf "$copy"
    mkdir -p "$copy/src/remote"
    cp src/key.rs src/park.rs src/wide.rs "$copy/src/"
    cp src/remote/{endpoint,handover,inbox,outer}.rs "$copy/src/remote/"
    mkdir "$copy/loom"
    cp -r loom/Cargo.toml loom/Cargo.lock loom/src "$copy/loom/"
    sed -i 's/^name = "mainstay-loom"$/name = "mainstay-loom-planted"/' "$copy"/loom/Cargo.{toml,lock}
}

build() {
    cargo test --quiet --manifest-path "$copy/loom/Cargo.toml" --release --no-run >"$log" 2>&1 || {
        cat "$log" >&2
        fail "the models do not compile with: $1"
    }
}

# Runs models, all of them if none is named. A model that finds no end is stopped, and counts as one that did not fail.
models() { # models MODEL..
    timeout --kill-after=10 300 \
        cargo test --quiet --manifest-path "$copy/loom/Cargo.toml" --release -- --format=pretty \
        ${1:+--exact} "$@" >"$log" 2>&1
}

failed_models() {
    sed -n 's/^test models::\([a-z_:]*\) \.\.\. FAILED$/\1/p' "$log" | sort
}

# What it failed with, in one line. (A deadlock is told with the state of every thread.)
reason() { # reason MODEL
    awk -v head="---- models::$1 stdout ----" '
        $0 == head { here = 1; next }
        here && /^---- / { exit }
        here && /panicked at/ { panicked = 1; next }
        here && panicked { print; exit }' "$log" | cut -c -100
}

all=
if [ "${1:-}" = --all ]; then
    all=yes
    shift
fi
faults=("$@")
[ $# -gt 0 ] || for patch in loom/planted/*.patch; do
    faults+=("$(basename "$patch" .patch)")
done

began=$SECONDS
renew_copy
build "no fault"
models || {
    cat "$log" >&2
    fail "a model fails without a fault"
}
printf 'no fault: all models pass (%ss)\n' "$((SECONDS - began))"

missed=()
for fault in "${faults[@]}"; do
    patch=loom/planted/$fault.patch
    [ -f "$patch" ] || fail "there is no $patch"
    mapfile -t named < <(sed -n 's/^Caught-by: //p' "$patch")
    [ ${#named[@]} -gt 0 ] || fail "$patch names no model"
    renew_copy
    patch --quiet --strip=1 --directory="$copy" <"$patch" >"$log" 2>&1 || {
        cat "$log" >&2
        fail "$patch does not apply any more: renew it"
    }
    build "$fault"
    printf '%s\n' "$fault"
    if [ -n "$all" ]; then
        models || true
    else
        models "${named[@]/#/models::}" || true
    fi
    mapfile -t caught < <(failed_models)
    for model in "${named[@]}"; do
        if [[ " ${caught[*]} " == *" $model "* ]]; then
            printf '    caught by %s\n        %s\n' "$model" "$(reason "$model")"
        else
            printf '    NOT CAUGHT by %s\n' "$model"
            missed+=("$fault, $model")
        fi
    done
    for model in "${caught[@]}"; do
        [[ " ${named[*]} " == *" $model "* ]] || printf '    also by %s\n' "$model"
    done
done

printf '%s faults in %ss\n' "${#faults[@]}" "$((SECONDS - began))"
[ ${#missed[@]} -eq 0 ] || fail "not caught:$(printf '\n  %s' "${missed[@]}")"
