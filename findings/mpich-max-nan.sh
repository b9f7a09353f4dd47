#!/usr/bin/env bash
# After MPICH's MPI_Allreduce with MPI_MAX over a NaN, the ranks hold different results.
#
# Expected: an all-reduce leaves the same value on every rank, whatever MPI_MAX makes of a NaN.
# Seen: with 2 ranks of which the first has a NaN, one rank gets NaN and the other the number.
# Why it matters: "is any gradient not finite?" asked by a maximum is answered differently on each rank, and the
# ranks part ways. A count of such values, summed in integers, is the same everywhere.
#
# Versions: mpich 5.0.2 and mpi4py 4.1.2 from PyPI, numpy 2.4.6. Output on 2026-11-28:
#   the ranks hold [1.0, nan]
# Exits 1 where that is not seen any more.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check mpich==5.0.2 mpi4py==4.1.2 numpy==2.4.6
cat > "$folder/max.py" <<'PYTHON'
import numpy as np
from mpi4py import MPI

world = MPI.COMM_WORLD
mine = np.array([np.nan if world.rank == 0 else 1.0], np.float32)
largest = np.empty_like(mine)
world.Allreduce(mine, largest, MPI.MAX)
found = world.gather(float(largest[0]))
if world.rank == 0:
    print(found, flush=True)
PYTHON
found=$("$folder/venv/bin/mpiexec" -n 2 "$folder/venv/bin/python" "$folder/max.py")
echo "the ranks hold $found"
case "$found" in "[nan, 1.0]" | "[1.0, nan]") ;; *) exit 1 ;; esac
