"""Whether this process is one of several that a launcher such as mpiexec or srun has started, from
what launchers say.

Only variables that a launcher sets for the processes it starts are looked at. SLURM_NTASKS is not
one of them: a batch script has it too, although it runs once; SLURM_STEP_NUM_TASKS is that of the
step, that is of one srun. MPI itself is not asked, since starting it ends a process on machines
where no launcher is behind it; a script that has imported mpi4py has started it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

#: Name of the launcher, its variable for the number of processes, and that for the number of this
#: one.
_LAUNCHERS = (
    ("mpiexec", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("mpiexec", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"),
    ("mpiexec", "PMI_SIZE", "PMI_RANK"),
    ("srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
)


@dataclass(frozen=True)
class Launch:
    """How this process was started.

    Attributes
    ----------
    launcher : str
        "mpiexec", "srun", or empty.
    size, rank : int
        How many processes were started, and which of them this is, from 0.
    """

    launcher: str = ""
    size: int = 1
    rank: int = 0


def launch(environment: Mapping[str, str] | None = None) -> Launch:
    """How this process was started; several of a launcher, or alone.

    Parameters
    ----------
    environment : mapping, optional
        Default: that of the process.
    """
    known = os.environ if environment is None else environment
    if environment is None and "mpi4py.MPI" in sys.modules:
        world = sys.modules["mpi4py.MPI"].COMM_WORLD
        return Launch("mpiexec", world.Get_size(), world.Get_rank())
    for name, size, rank in _LAUNCHERS:
        count, number = known.get(size, ""), known.get(rank, "")
        if count.isdigit() and int(count) > 1:
            return Launch(name, int(count), int(number) if number.isdigit() else 0)
    return Launch()
