#!/usr/bin/env bash
# Makes an environment for tools that are not to meet our own dependencies, each package by its hash.
#   tools/setup_tools.sh FOLDER REQUIREMENTS
set -euo pipefail

readonly folder=$1 requirements=$2

echo "Installing the tools of $requirements into $folder; about a minute …"
python3 -m venv --clear "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
    --require-hashes --only-binary :all: -r "$requirements"
