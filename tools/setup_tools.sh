#!/usr/bin/env bash
# Makes an environment for tools that are not to meet our own dependencies, each package by its hash.
#   tools/setup_tools.sh FOLDER REQUIREMENTS
# PYTHON names the interpreter; see find_python.sh.
set -euo pipefail

readonly folder=$1 requirements=$2
source "$(dirname "${BASH_SOURCE[0]}")/find_python.sh"

echo "Installing the tools of $requirements into $folder; about a minute …"
python=$(find_python)
"$python" -m venv --clear "$folder"
# Bytecode is made of what is read when it is first read, which is a third of it.
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
    --no-compile --require-hashes --only-binary :all: -r "$requirements"
