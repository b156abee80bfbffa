"""The architecture: tensors to losses and masks."""
