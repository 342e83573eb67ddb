# Read by the scripts that make environments: find_python names a Python that Countersign runs on.
# PYTHON names the interpreter. By default it is the system's own, and else the first of python3, python3.13, …
# that is new enough. The system's own comes first because it is kept up to date with the machine, and was built
# with a profile: an interpreter that pyenv built needs a quarter more time for the same code.

new_enough() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

makes_environments() {
    "$1" -c 'import ensurepip, venv' 2>/dev/null
}

find_python() {
    local candidate
    local -r systems=/usr/bin/python3
    if [[ -z ${PYTHON:-} ]] && new_enough "$systems" && makes_environments "$systems"; then
        echo "$systems"
        return
    fi
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if new_enough "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    echo "Countersign needs Python 3.11, 3.12 or 3.13, and found none (tried: ${PYTHON:-python3 python3.13 python3.12 python3.11})." >&2
    echo "Install one, or name it: make setup PYTHON=/path/to/python3.12" >&2
    return 1
}
