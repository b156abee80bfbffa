"""What guards a training run: checkpoints, resume, faults, skipped rows."""
