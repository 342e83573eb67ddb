#!/usr/bin/env bash
# Fetches the wheels that the images are built from into the folder beside this script, each checked by its hash.
#   fetch_wheels.sh [WHEELS]
# WHEELS is a folder that has them already; without it pip asks the index that this machine is set up for.
# PYTHON is the interpreter with pip (python3); it must be of the version and platform of the images.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

source=()
[[ -z ${1:-} ]] || source=(--no-index --find-links "$1")
mkdir -p wheels
for use in run connector; do
    "${PYTHON:-python3}" -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
        --only-binary :all: "${source[@]}" --dest wheels -r "requirements/$use.txt"
done
