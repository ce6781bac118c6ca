#!/bin/bash
# Trains on several nodes of a SLURM cluster, with one task per GPU: sbatch scripts/slurm.sh --config=configs/mcsan.py:iemocap
#SBATCH --job-name=jaxser
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append

# JAX discovers the other tasks through SLURM's environment variables. If one task fails, the others are stopped and the
# job is requeued; the same command then resumes training. Exit status 2 (a usage error) is final.
srun --kill-on-bad-exit=1 .venv/bin/python -m jaxser.main --workdir="runs/$SLURM_JOB_ID" "$@"
status=$?
if [ "$status" -ne 0 ] && [ "$status" -ne 2 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 5 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
