#!/usr/bin/env bash
# Makes the virtual environment and installs the given requirement files into it, each by its hash.
#   tools/setup_environment.sh FOLDER REQUIREMENTS...
# PYTHON names the interpreter; see find_python.sh.
set -euo pipefail

readonly folder=$1
shift

source "$(dirname "${BASH_SOURCE[0]}")/find_python.sh"

make_environment() {
    local python=$1
    # Debian ships Python without ensurepip, and then `venv` leaves half an environment behind.
    if ! makes_environments "$python"; then
        echo "$python cannot make virtual environments: its venv module is not installed." >&2
        echo "On Debian and Ubuntu: sudo apt-get install python3-venv" >&2
        return 1
    fi
    echo "Making an environment of $("$python" --version) ($python) …"
    "$python" -m venv "$folder"
}

if ! new_enough "$folder/bin/python"; then
    python=$(find_python)
    make_environment "$python"
fi

arguments=()
for file in "$@"; do
    arguments+=(-r "$file")
done
echo "Installing into $folder, each package checked by its hash; about a minute on a new machine …"
# Wheels only: a source archive would fetch what it builds with, and that has no hash here.
# Bytecode is made of what is read when it is first read, which is a third of it.
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
    --no-compile --require-hashes --only-binary :all: "${arguments[@]}"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
    --no-deps --no-index --no-build-isolation -e .
