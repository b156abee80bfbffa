"""From samples to tensors."""
