#!/usr/bin/env bash
# Stage 3 on four nodes of eight GPUs; any number of processes that divides BATCH will do, and may
# change from start to start, as each takes its share of the paper's 512 images a step.
#   sbatch --export=ALL,IMAGENET=...,PINPP=... configs/slurm/stage3_mpm.sh [settings]
# CONFIG=resnet50_gelu_at_fast has the learning rate of another batch: give BATCH=1024 with it.
# Two minutes before its time is up every process gets SIGUSR1: Lightning saves a checkpoint, puts
# the job back in the queue, and the same command goes on from there. After the loss of a node
# SLURM queues it again itself; it then goes on from checkpoints/last.ckpt.
# A process that fails ends the job (--kill-on-bad-exit), so that none waits for it in vain.
#SBATCH --job-name=partrobust-stage3
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --signal=SIGUSR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
RUNS=${RUNS:-runs}
# Since SLURM 22.05 srun does not take --cpus-per-task over from sbatch.
srun ${SLURM_CPUS_PER_TASK:+--cpus-per-task=$SLURM_CPUS_PER_TASK} --kill-on-bad-exit=1 \
  .venv/bin/python -m pipeline stage3_mpm fit \
  $(printf -- '-c %s ' ${CONFIG:-resnet50_gelu_at}) \
  --data.init_args.imagenet="$IMAGENET" --data.init_args.pinpp="$PINPP" \
  --data.init_args.labels="$RUNS/stage2_pseudolabels" \
  --data.init_args.batch_size=$((${BATCH:-512} / (SLURM_JOB_NUM_NODES * SLURM_NTASKS_PER_NODE))) \
  --trainer.default_root_dir="$RUNS/${NAME:-stage3_mpm}" \
  --trainer.devices="$SLURM_NTASKS_PER_NODE" --trainer.num_nodes="$SLURM_JOB_NUM_NODES" "$@"
