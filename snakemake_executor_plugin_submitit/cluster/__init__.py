"""What is asked of SLURM, or of this machine in its place, and how the answers are read."""
