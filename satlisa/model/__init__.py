"""The architecture: tensors → losses and masks."""
