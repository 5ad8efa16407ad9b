#!/usr/bin/env bash
# Attacks on MODEL (a run folder, timm folder, file or timm name) on four nodes of eight GPUs; any
# number will do, and may change from start to start. Corruptions, shifts and biases, which take
# minutes, are left to `make generalisation`.
#   sbatch --export=ALL,IMAGENET=...,PINPP=... configs/slurm/evaluate.sh [settings]
# It keeps no checkpoint: a chunk of images whose record is there is done, and the same command
# attacks those that are left. So two minutes before its time is up the job only puts itself back
# in the queue. The signal goes to this script alone (B:), not to the processes, which work on until
# SLURM ends them. A process that fails ends the job (--kill-on-bad-exit), so that none waits for
# its records in vain.
#SBATCH --job-name=partrobust-evaluate
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=4
#SBATCH --time=24:00:00
#SBATCH --signal=B:SIGUSR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
RUNS=${RUNS:-runs}
MODEL=${MODEL:-$RUNS/stage3_mpm}
CONFIG=${CONFIG:-imagenet}
# The folder, and where below it, are those of `make evaluate`.
FOLDER=$RUNS/evaluate/${NAME:-$(basename -- "$MODEL")}
case " $CONFIG " in
  *" pin11 "*) FOLDER+=/subsets/pin11 ;;
  *" pin125 "*) FOLDER+=/subsets/pin125 ;;
esac
case " $CONFIG " in *" smoothing "*) FOLDER+=/certified ;; esac
trap 'scontrol requeue "$SLURM_JOB_ID"' USR1
# Since SLURM 22.05 srun does not take --cpus-per-task over from sbatch.
srun ${SLURM_CPUS_PER_TASK:+--cpus-per-task=$SLURM_CPUS_PER_TASK} --kill-on-bad-exit=1 \
  .venv/bin/python -m pipeline evaluate test \
  $(printf -- '-c %s ' $CONFIG) \
  --data.init_args.imagenet="$IMAGENET" ${PINPP:+--data.init_args.pinpp="$PINPP"} \
  --model.init_args.model="$MODEL" \
  --trainer.default_root_dir="$FOLDER" \
  --trainer.devices="$SLURM_NTASKS_PER_NODE" --trainer.num_nodes="$SLURM_JOB_NUM_NODES" "$@" &
# A trap runs only while the shell waits, not while it runs a command in the foreground.
wait $!
