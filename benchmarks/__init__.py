"""Measurements as ratios in one run; docs/benchmarks.md has the results."""
