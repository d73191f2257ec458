"""Benchmarks: each compares kit with a named rival in one run and prints ratios. `make bench-…` runs them."""
