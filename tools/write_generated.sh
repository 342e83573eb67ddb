#!/usr/bin/env bash
# Writes all that follows from the contracts: the Python beside each and the reference page.
#   tools/write_generated.sh PROTO_ROOT REFERENCE SCRATCH
set -euo pipefail

readonly root=$1 reference=$2 scratch=$3

python tools/generate_protos.py --root "$root" --scratch "$scratch"
python tools/generate_protos.py --root "$root" --scratch "$scratch" --image "$scratch/now.binpb"
python tools/generate_reference.py "$scratch/now.binpb" "$reference"
