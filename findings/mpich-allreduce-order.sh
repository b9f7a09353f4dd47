#!/usr/bin/env bash
# MPICH's MPI_Allreduce adds in another order from its fifth call on.
#
# Expected: the same sum of the same floats, by the same ranks in the same process, has the same bits each time; the
# MPI standard recommends it strongly.
# Seen: with 4 ranks on one machine and 100,000 floats, the first four results differ from all later ones.
# Why it matters: a training run that is saved and resumed is not the run that goes on, though both add the same.
# With MPIR_CVAR_POSIX_NUM_COLLS_THRESHOLD=0 all calls agree. Not seen with 2 or 3 ranks.
#
# Versions: mpich 5.0.2 from PyPI. Under MPI_THREAD_MULTIPLE, as mpi4py asks for, it was not seen. Output on 2026-11-28:
#   as it comes: 4 results, then 3 others
#   with the variable: 7 results, then 0 others
# Exits 1 where that is not seen any more.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check mpich==5.0.2
cat > "$folder/order.py" <<'PYTHON'
import ctypes
import random
import sys

mpi = ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_GLOBAL)
# The constants of MPI 5.0's standard interface.
world, float32, add, in_place = map(ctypes.c_void_p, (0x101, 0x210, 0x21, 1))
mpi.MPI_Init(None, None)
rank = ctypes.c_int()
mpi.MPI_Comm_rank(world, ctypes.byref(rank))
random.seed(rank.value)
mine = [random.gauss(0, 1) for _ in range(100_000)]
sums = []
for call in range(7):
    total = (ctypes.c_float * len(mine))(*mine)
    mpi.MPI_Allreduce(in_place, total, len(mine), float32, add, world)
    sums.append(bytes(total))
if rank.value == 0:
    same = [total == sums[0] for total in sums]
    first = same.index(False) if False in same else len(same)
    print(f"{first} results, then {len(same) - first} others", flush=True)
mpi.MPI_Finalize()
PYTHON
run() { "$folder/venv/bin/mpiexec" -n 4 "$folder/venv/bin/python" "$folder/order.py" "$folder/venv/lib/libmpi_abi.so.1"; }
found=$(run)
echo "as it comes: $found"
cured=$(MPIR_CVAR_POSIX_NUM_COLLS_THRESHOLD=0 run)
echo "with the variable: $cured"
[ "$found" = "4 results, then 3 others" ] && [ "$cured" = "7 results, then 0 others" ]
