"""Time and memory against a stated peer: `python -m benchmarks`. RESULTS.md records what was measured."""
