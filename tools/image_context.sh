#!/usr/bin/env bash
# Gathers what the images are built from into one folder, so that the build itself needs no network.
#   tools/image_context.sh VENV FOLDER [WHEELS]
# WHEELS is a folder with the wheels of the requirement files; without it pip fetches them, by hash.
set -euo pipefail

readonly venv=$1 folder=$2 wheels=${3:-}

rm -rf "$folder"
mkdir -p "$folder/wheels" "$folder/requirements"
cp requirements/run.txt requirements/connector.txt "$folder/requirements/"
source=()
[[ -z $wheels ]] || source=(--no-index --find-links "$wheels")
for use in run connector; do
    "$venv/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
        --only-binary :all: "${source[@]}" --dest "$folder/wheels" -r "requirements/$use.txt"
done
# The environment has the build backend, pinned like the rest.
"$venv/bin/python" -m pip wheel --quiet --disable-pip-version-check --no-deps --no-index \
    --no-build-isolation --wheel-dir "$folder/wheels" .
cp deploy/images/Containerfile "$folder/"
echo "$folder: $(find "$folder/wheels" -name '*.whl' | wc -l) wheels"
