"""Questions to answers and masks."""
