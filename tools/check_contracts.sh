#!/usr/bin/env bash
# Lints the contracts, and compares them with those of an earlier commit.
#   tools/check_contracts.sh SCRATCH [COMMIT]
# Without COMMIT the comparison is with the latest release: the newest tag, or in a clone without tags the commit
# that dated a version in CHANGELOG.md; before the first release with
# origin/main; and with the last commit where that is all there is.
set -euo pipefail

readonly scratch=$1
commit=${2:-}

# Both checks read an image, because buf would fetch what the contracts import.
image_of() {
    python tools/generate_protos.py --root "$1" --scratch "$scratch" --image "$2"
}

base_commit() {
    git describe --tags --match 'v*' --abbrev=0 2>/dev/null \
        || git log -1 --format=%H --pickaxe-regex -S'^## \[[0-9.]+\] - [0-9]' -- CHANGELOG.md 2>/dev/null | grep . \
        || git rev-parse --verify --quiet origin/main \
        || git rev-parse --verify --quiet HEAD \
        || true
}

rm -rf "$scratch"
mkdir -p "$scratch"
image_of proto "$scratch/now.binpb"
buf lint "$scratch/now.binpb" --config proto/buf.yaml

commit=${commit:-$(base_commit)}
if [[ -z $commit ]] || ! git ls-tree -r --name-only "$commit" -- proto | grep -q '\.proto$'; then
    echo "No earlier contracts to compare with."
    exit 0
fi
mkdir "$scratch/then"
git archive "$commit" proto | tar -x -C "$scratch/then"
image_of "$scratch/then/proto" "$scratch/then.binpb"
buf breaking "$scratch/now.binpb" --against "$scratch/then.binpb" --config proto/buf.yaml
echo "Contracts keep their promises since $commit."
