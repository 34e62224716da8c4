#!/usr/bin/env bash
#
# Other threads at an executor, under ThreadSanitizer: the programs in src/bin/ must run without a report, and the
# faults in planted/ must each be reported by the programs that they name.
#
#   tsan/run.sh              all programs, then all faults
#   tsan/run.sh NAME..       only these programs and faults
#
# Needs a nightly toolchain (TOOLCHAIN=.. to name another one than `nightly`) on a host that has ThreadSanitizer. The
# standard library is the prebuilt one, which is not instrumented. So the library is built with the locks of src/sync.rs
# in the place of its own, in a copy; suppressions.txt says what is left.

set -euo pipefail
cd "$(dirname "$0")/.."

toolchain=${TOOLCHAIN:-nightly}
host=$(rustc "+$toolchain" -vV | sed -n 's/^host: //p')
target=${CARGO_TARGET_DIR:-$PWD/target/tsan}
copy=$target/planted
log=$target/output.log
programs=(wakes cancels calls handles reuse hooks)
# What ThreadSanitizer exits with when it has made a report.
found=66

# The flags may differ from those of the prebuilt standard library, which the second one allows.
export RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer"
export CARGO_INCREMENTAL=0 RUST_BACKTRACE=0
export TSAN_OPTIONS="suppressions=$PWD/tsan/suppressions.txt halt_on_error=1 exitcode=$found"

fail() {
    printf 'failed: %s\n' "$*" >&2
    exit 1
}

build() { # build FOLDER PROGRAM..
    local folder=$1 program chosen=()
    shift
    for program in "$@"; do
        chosen+=(--bin "$program")
    done
    # An explicit --target keeps the flags off build scripts.
    CARGO_TARGET_DIR=$folder/target cargo "+$toolchain" build --quiet --target "$host" \
        --manifest-path "$folder/tsan/Cargo.toml" "${chosen[@]}" >"$log" 2>&1
}

# A wake that is lost shows as a program that hangs.
run() { # run FOLDER PROGRAM -> the program's exit status; its output in $log
    timeout --kill-after=10 120 "$1/target/$host/debug/$2" >"$log" 2>&1
}

renew_copy() {
    rm -rf "$copy/src" "$copy/tsan"
    # The manifest names these; nothing builds them.
    mkdir -p "$copy/benches" "$copy/tests/it"
    touch "$copy"/benches/{compare,instructions,groups,http}.rs "$copy/tests/it/main.rs" "$copy/tests/features.rs"
    cp Cargo.toml README.md "$copy/"
    cp -R src "$copy/"
    cp tsan/src/sync.rs "$copy/src/sync.rs"
    mkdir "$copy/tsan"
    cp -R tsan/Cargo.toml tsan/Cargo.lock tsan/src "$copy/tsan/"
}

# Whether the last run made a report of a race.
reported() { # reported STATUS
    [ "$1" -eq "$found" ] && grep -q '^WARNING: ThreadSanitizer: data race' "$log"
}

summary() {
    sed -n 's/^SUMMARY: ThreadSanitizer: //p' "$log" | sed 's/ [^ ]*\/\(src\|library\)\// /' | cut -c 1-100 | head -n 1
}

chosen() { # chosen NAME
    [ ${#only[@]} -eq 0 ] || [[ " ${only[*]} " == *" $1 "* ]]
}

only=("$@")
mkdir -p "$copy"
began=$SECONDS

# One folder of artefacts serves all. (Cargo sees by the dates that the sources are new.)
renew_copy
build "$copy" "${programs[@]}" race || {
    cat "$log" >&2
    fail "the programs do not compile"
}
for program in "${programs[@]}"; do
    chosen "$program" || continue
    status=0
    run "$copy" "$program" || status=$?
    [ "$status" -eq 0 ] || {
        cut -c 1-200 "$log" | head -n 100 >&2
        fail "$program, with exit status $status"
    }
    cat "$log"
done

if chosen race; then
    status=0
    run "$copy" race || status=$?
    reported "$status" || fail "the planted race was not reported (exit status $status)"
    printf 'race: reported\n'
fi

missed=()
for patch in tsan/planted/*.patch; do
    fault=$(basename "$patch" .patch)
    chosen "$fault" || continue
    mapfile -t named < <(sed -n 's/^Caught-by: //p' "$patch")
    [ ${#named[@]} -gt 0 ] || fail "$patch names no program"
    renew_copy
    patch --quiet --strip=1 --directory="$copy" <"$patch" >"$log" 2>&1 || {
        cat "$log" >&2
        fail "$patch does not apply any more: renew it"
    }
    build "$copy" "${named[@]}" || {
        cat "$log" >&2
        fail "the programs do not compile with $fault"
    }
    printf '%s\n' "$fault"
    for program in "${named[@]}"; do
        status=0
        run "$copy" "$program" || status=$?
        if reported "$status"; then
            printf '    reported in %s: %s\n' "$program" "$(summary)"
        else
            printf '    NOT REPORTED in %s (exit status %s)\n' "$program" "$status"
            missed+=("$fault, $program")
        fi
    done
done

printf 'all of it in %ss\n' "$((SECONDS - began))"
[ ${#missed[@]} -eq 0 ] || fail "not reported:$(printf '\n  %s' "${missed[@]}")"
