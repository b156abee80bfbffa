"""The packaged tiny models of PRESET=demo, and their pretraining."""
