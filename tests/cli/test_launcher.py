"""Several processes of one launcher: refused where each would do the whole work; what is one
process goes on.
"""

from __future__ import annotations

import pytest

from ptychon.__main__ import main
from ptychon.distributed.launcher import Launch, launch

#: What Slurm sets in a batch script of a job of eight tasks, which runs once.
BATCH = {
    "SLURM_JOB_ID": "7",
    "SLURM_NTASKS": "8",
    "SLURM_NPROCS": "8",
    "SLURM_PROCID": "0",
    "SLURM_NNODES": "1",
}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Launch()),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}, Launch("mpiexec", 2, 1)),
        ({"PMI_SIZE": "4", "PMI_RANK": "3"}, Launch("mpiexec", 4, 3)),
        ({"PMI_SIZE": "1", "PMI_RANK": "0"}, Launch()),
        # what Open MPI 5.0.11 set, then MPICH 5.0.2 and Intel MPI 2021.18 alike, with -n 2 on one
        # machine
        (
            {
                "OMPI_COMM_WORLD_SIZE": "2",
                "OMPI_COMM_WORLD_RANK": "1",
                "OMPI_UNIVERSE_SIZE": "2",
                "PMIX_RANK": "1",
                "PMIX_NAMESPACE": "prterun-1@1",
            },
            Launch("mpiexec", 2, 1),
        ),
        (
            {"PMI_FD": "9", "PMI_SIZE": "2", "PMI_RANK": "1", "MPI_LOCALNRANKS": "2"},
            Launch("mpiexec", 2, 1),
        ),
        (BATCH, Launch()),
        (BATCH | {"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5"}, Launch("srun", 8, 5)),
        (BATCH | {"SLURM_STEP_NUM_TASKS": "1"}, Launch()),  # srun -n 1 in that job
        (
            BATCH | {"OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_RANK": "2"},
            Launch("mpiexec", 8, 2),
        ),
    ],
)
def test_what_launchers_say(environment, expected):
    assert launch(environment) == expected


def test_copies_are_refused(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    assert main(["reconstruct", "scan.cxi"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "mpiexec has started 2 processes" in said
    assert "ptychon reconstruct" in said
    assert main(["engines"]) == 0  # it only prints
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "1")
    assert main(["reconstruct", "scan.cxi"]) == 2
    assert "scan.cxi" in capsys.readouterr().err  # that there is no such file
