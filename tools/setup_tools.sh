#!/usr/bin/env bash
# Makes an environment for tools that are not to meet our own dependencies, each package by its hash.
#   tools/setup_tools.sh FOLDER REQUIREMENTS
set -euo pipefail

readonly folder=$1 requirements=$2

echo "Installing the tools of $requirements into $folder; about a minute …"
python3 -m venv --clear "$folder"
# Bytecode is made of what is read when it is first read, which is a third of it.
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
    --no-compile --require-hashes --only-binary :all: -r "$requirements"
