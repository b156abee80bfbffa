"""The demo preset's own material: synthetic scenes, their rows, and a small pretrained backbone."""
