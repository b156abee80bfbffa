"""Generation: images and prompts → answers and masks."""
