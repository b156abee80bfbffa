"""Optional: a trained model, as a repository of the hub (docs/publishing.md)."""
