#!/usr/bin/env bash
# Gathers what the images are built from into one folder, so that the build itself needs no network.
#   tools/image_context.sh VENV FOLDER [WHEELS]
# WHEELS is a folder with the wheels of the requirement files; without it pip fetches them, by hash.
set -euo pipefail

readonly venv=$1 folder=$2 wheels=${3:-}

rm -rf "$folder"
mkdir -p "$folder/wheels" "$folder/requirements"
cp requirements/run.txt requirements/connector.txt "$folder/requirements/"
cp deploy/images/Containerfile deploy/images/fetch_wheels.sh "$folder/"
PYTHON=$(realpath --no-symlinks "$venv/bin/python") "$folder/fetch_wheels.sh" "${wheels:+$(realpath "$wheels")}"
# The environment has the build backend, pinned like the rest.
"$venv/bin/python" -m pip wheel --quiet --disable-pip-version-check --no-deps --no-index \
    --no-build-isolation --wheel-dir "$folder/wheels" .
echo "$folder: $(find "$folder/wheels" -name '*.whl' | wc -l) wheels"
