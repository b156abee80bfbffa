"""Loading and saving weights, local and from the hub."""
