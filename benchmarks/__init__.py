"""Time and memory against a stated peer: `python -m benchmarks`. RESULTS.md holds what was measured, where and how."""
