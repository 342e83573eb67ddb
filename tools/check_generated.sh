#!/usr/bin/env bash
# Fails if what follows from the contracts is not what stands in the tree. Nothing is written outside
# SCRATCH, so it also tells of work that is not committed yet.
#   tools/check_generated.sh SCRATCH
set -euo pipefail

readonly scratch=$1

rm -rf "$scratch"
mkdir -p "$scratch"
cp -r proto "$scratch/proto"
tools/write_generated.sh "$scratch/proto" "$scratch/reference.md" "$scratch"
if ! diff -rq --exclude=__pycache__ proto "$scratch/proto" \
    || ! diff -q docs/reference.md "$scratch/reference.md"; then
    echo "What is generated from the contracts is stale: run 'make proto' and commit what it writes." >&2
    exit 1
fi
if git rev-parse --git-dir >/dev/null 2>&1; then
    untracked=$(git ls-files --others --exclude-standard -- proto)
    if [[ -n $untracked ]]; then
        printf 'Not committed yet:\n%s\n' "$untracked" >&2
        exit 1
    fi
fi
