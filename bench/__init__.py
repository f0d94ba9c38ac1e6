"""Throughput of every operator beside its peers. Nothing here is a test: see bench/results/README.md."""
