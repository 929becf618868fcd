#!/bin/bash
# One training on 2 machines of 8 GPUs: sbatch configs/slurm.sh
# Run it from a checkout on a file system that all machines share, after `make setup` there and, since one process
# trains the language model, `.venv/bin/sentiment pretrain --config configs/imdb.yaml`. Written from
# Slurm's manual and not yet tested on a cluster.
#SBATCH --job-name=sentiment
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120      # two minutes before the time limit, to this script only
set -euo pipefail

first_host=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

# Slurm does not requeue a job that reaches its time limit.
trap 'kill -TERM "$training"; wait "$training" || true; scontrol requeue "$SLURM_JOB_ID"' USR1

# --auto_resume: a requeued job continues from the last checkpoint.
srun .venv/bin/torchrun \
    --nnodes "$SLURM_NNODES" --nproc-per-node 8 --max-restarts 3 \
    --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d --rdzv-endpoint "$first_host:29500" \
    train.py --config configs/imdb.yaml --auto_resume &
training=$!
wait "$training"
