#!/bin/bash
# One training on several nodes of a SLURM cluster, a task a GPU: sbatch scripts/slurm.sh --config=configs/mcsan.py:iemocap
#SBATCH --job-name=jaxser
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append

# JAX finds the other tasks by SLURM's own variables. When one dies the rest are stopped, and the job is queued again:
# the same command goes on. Exit status 2 (a wrong flag) is final.
srun --kill-on-bad-exit=1 .venv/bin/python -m jaxser.main --workdir="runs/$SLURM_JOB_ID" "$@"
status=$?
if [ "$status" -ne 0 ] && [ "$status" -ne 2 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 5 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
