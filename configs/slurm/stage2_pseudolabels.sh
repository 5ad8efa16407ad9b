#!/usr/bin/env bash
# Stage 2 on four nodes of eight GPUs; any number will do, and may change from start to start.
#   sbatch --export=ALL,IMAGENET=...,PINPP=... configs/slurm/stage2_pseudolabels.sh [settings]
# It keeps no checkpoint: a shard of labels that is there is whole, and the same command makes those
# that are missing. So two minutes before its time is up the job only puts itself back in the
# queue. The signal goes to this script alone (B:), not to the labelling processes, which work on
# until SLURM ends them. They draw shards one by one, so none waits for another at the end.
#SBATCH --job-name=partrobust-stage2
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=08:00:00
#SBATCH --signal=B:SIGUSR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
RUNS=${RUNS:-runs}
trap 'scontrol requeue "$SLURM_JOB_ID"' USR1
# Since SLURM 22.05 srun does not take --cpus-per-task over from sbatch.
srun ${SLURM_CPUS_PER_TASK:+--cpus-per-task=$SLURM_CPUS_PER_TASK} --kill-on-bad-exit=1 \
  .venv/bin/python -m pipeline stage2_pseudolabels predict \
  $(printf -- '-c %s ' ${CONFIG:-pinpp_swin_b}) \
  --data.init_args.imagenet="$IMAGENET" --data.init_args.pinpp="$PINPP" \
  --model.init_args.segmenter="$RUNS/stage1_segmenter" \
  --trainer.default_root_dir="$RUNS/${NAME:-stage2_pseudolabels}" \
  --trainer.devices="$SLURM_NTASKS_PER_NODE" --trainer.num_nodes="$SLURM_JOB_NUM_NODES" "$@" &
# A trap runs only while the shell waits, not while it runs a command in the foreground.
wait $!
