#!/usr/bin/env bash
# Stage 1 on one node of eight GPUs; any number of processes that divides BATCH will do, and may
# change from start to start, as each takes its share of the recipe's 8 images a step.
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
# Since SLURM 22.05 srun does not take --cpus-per-task over from sbatch.
srun ${SLURM_CPUS_PER_TASK:+--cpus-per-task=$SLURM_CPUS_PER_TASK} --kill-on-bad-exit=1 \
  .venv/bin/python -m pipeline stage1_segmenter fit \
  $(printf -- '-c %s ' ${CONFIG:-pinpp_swin_b}) \
  --data.init_args.imagenet="$IMAGENET" --data.init_args.pinpp="$PINPP" \
  --data.init_args.batch_size=$((${BATCH:-8} / (SLURM_JOB_NUM_NODES * SLURM_NTASKS_PER_NODE))) \
  --trainer.default_root_dir="$RUNS/${NAME:-stage1_segmenter}" \
  --trainer.devices="$SLURM_NTASKS_PER_NODE" --trainer.num_nodes="$SLURM_JOB_NUM_NODES" "$@"
