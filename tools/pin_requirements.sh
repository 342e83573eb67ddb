#!/usr/bin/env bash
# Pins every dependency of pyproject.toml by version and hash, one file per use, for all Pythons
# that we support. `dev` comes first and binds the others, so that they can share an environment.
set -euo pipefail

if ! command -v uv >/dev/null; then
    echo "Pinning needs uv (pip install uv); installing from the pinned files does not." >&2
    exit 1
fi

pin() {
    local file=requirements/$1.txt
    shift
    # No line may tell where a package was fetched from: that is the reader's own setting.
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
        --no-annotate --no-emit-index-url --no-emit-find-links --upgrade "$@" --output-file "$file"
}

pin dev pyproject.toml --extra embedded --extra pkcs11 --group dev --group build
pin run pyproject.toml --constraint requirements/dev.txt
pin connector pyproject.toml --extra matcher --extra images --constraint requirements/dev.txt
pin embedded pyproject.toml --extra embedded --constraint requirements/dev.txt
pin build --group build --constraint requirements/dev.txt
pin kubernetes --group kubernetes
pin sbom --group sbom
