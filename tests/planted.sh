#!/usr/bin/env bash
#
# Shows that tests/faults.rs finds bugs: applies each patch of tests/planted/ to a copy of the crate, one at a time, and
# asserts that the random faults fail there.
#
#   tests/planted.sh             all patches
#   tests/planted.sh 05          those whose name contains 05
#   TEST=model tests/planted.sh  by the reference of tests/model instead of the faults
#
# A patch named *.model.patch is one for the reference in any case: the faults make no such programs, or cannot tell.
#
# Not part of CI: it builds the crate once for every patch.

set -euo pipefail
cd "$(dirname "$0")/.."

root=$PWD
copy=$root/target/planted
programs=${MAINSTAY_FAULTS:-3000}
test=${TEST:-faults}
missed=()
found=0

fresh_copy() {
    rm -rf "$copy/src" "$copy/tests" "$copy/benches" "$copy/examples"
    mkdir -p "$copy"
    cp -R Cargo.toml Cargo.lock README.md src tests benches examples "$copy/"
    # So that cargo sees that the sources changed, whatever their dates say.
    find "$copy/src" -name '*.rs' -exec touch {} +
}

faults() { # faults TEST -> the test's status; its output in $copy/output
    (
        cd "$copy"
        unset MAINSTAY_SEED
        CARGO_TARGET_DIR=$copy/target CARGO_INCREMENTAL=1 MAINSTAY_FAULTS=$programs RUST_BACKTRACE=0 \
            timeout --kill-after=5 300 cargo test --quiet -j "${JOBS:-1}" --test "$1"
    ) >"$copy/output" 2>&1
}

build() { # build TEST
    (
        cd "$copy"
        CARGO_TARGET_DIR=$copy/target CARGO_INCREMENTAL=1 cargo test --quiet -j "${JOBS:-1}" --test "$1" --no-run
    ) >"$copy/output" 2>&1
}

fail() {
    printf 'failed: %s\n' "$1" >&2
    tail -n 20 "$copy/output" >&2
    exit 1
}

fresh_copy
faults "$test" || fail "the test is not clean without a patch"

for patch in tests/planted/*.patch; do
    name=$(basename "$patch" .patch)
    case $name in *"${1:-}"*) ;; *) continue ;; esac
    by=$test
    case $name in *.model) by=model ;; esac
    fresh_copy
    patch --quiet -p1 -d "$copy" <"$patch" >"$copy/output" 2>&1 || fail "$name does not apply"
    # What does not compile is not found by any test.
    build "$by" || fail "$name does not compile"
    if faults "$by"; then
        printf 'MISSED  %s\n' "$name"
        missed+=("$name")
    else
        why=$(grep -m 1 -A 1 '^MAINSTAY_SEED=.*strays' "$copy/output" | tail -n 1 | sed 's/^ *//' | cut -c 1-90 || true)
        printf 'found   %-36s %s\n' "$name" "${why:-it aborted, panicked or hung}"
        found=$((found + 1))
    fi
done

printf '%d found, %d missed\n' "$found" "${#missed[@]}"
[ ${#missed[@]} -eq 0 ]
