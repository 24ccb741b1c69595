#!/bin/bash
#SBATCH --account=lab
#SBATCH --comment=train
#SBATCH --cpus-per-task=2
#SBATCH --export=ALL
#SBATCH --gpus-per-node=2
#SBATCH --job-name=smk-1
#SBATCH --mem=1300MB
#SBATCH --nodes=1
#SBATCH --open-mode=append
#SBATCH --output='/shared/it'"'"'s here/smk-1/%j_0_log.out'
#SBATCH --partition=gpu
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=60
#SBATCH --nodelist=g1
module load cuda
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --cpus-per-task=2 --output '/shared/it'"'"'s here/smk-1/%j_%t_log.out' /opt/python3 -u -m submitit.core._submit '/shared/it'"'"'s here/smk-1'
