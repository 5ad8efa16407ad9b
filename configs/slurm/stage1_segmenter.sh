#!/usr/bin/env bash
# Stage 1 on one node of eight GPUs; more nodes: sbatch --nodes=2, and a batch_size of 1.
#   sbatch --export=ALL,IMAGENET=...,PINPP=... configs/slurm/stage1_segmenter.sh [settings]
# Two minutes before its time is up every process gets SIGUSR1: Lightning saves a checkpoint, puts
# the job back in the queue, and the same command goes on from there. After the loss of a node
# SLURM queues it again itself; it then goes on from checkpoints/last.ckpt.
# A process that fails ends the job (--kill-on-bad-exit), so that none waits for it in vain.
#SBATCH --job-name=partrobust-stage1
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=SIGUSR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
RUNS=${RUNS:-runs}
srun --kill-on-bad-exit=1 .venv/bin/python -m pipeline stage1_segmenter fit \
  -c "${CONFIG:-pinpp_swin_b}" \
  --data.init_args.imagenet="$IMAGENET" --data.init_args.pinpp="$PINPP" \
  --trainer.default_root_dir="$RUNS/stage1_segmenter" \
  --trainer.devices="$SLURM_NTASKS_PER_NODE" --trainer.num_nodes="$SLURM_JOB_NUM_NODES" "$@"
