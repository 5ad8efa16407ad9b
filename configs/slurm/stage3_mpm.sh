#!/usr/bin/env bash
# Stage 3 on four nodes of eight GPUs; stages 1 and 2 run the same way with their own arguments.
#   sbatch --export=ALL,IMAGENET=...,PINPP=... configs/slurm/stage3_mpm.sh
# Before its time is up the job gets SIGUSR1, saves a checkpoint and puts itself back in the queue.
#SBATCH --job-name=partrobust-stage3
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --signal=SIGUSR1@90
#SBATCH --requeue
set -euo pipefail
RUNS=${RUNS:-runs}
# Four times the GPUs: a quarter of the batch on each keeps the paper's 512 in all.
srun .venv/bin/python -m pipeline stage3_mpm fit -c configs/stage3_mpm/resnet50_gelu_at.yaml \
  --data.init_args.imagenet="$IMAGENET" --data.init_args.pinpp="$PINPP" \
  --data.init_args.labels="$RUNS/stage2_pseudolabels" --data.init_args.batch_size=16 \
  --trainer.default_root_dir="$RUNS/stage3_mpm" --trainer.devices=8 --trainer.num_nodes=4 "$@"
