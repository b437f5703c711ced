"""Benchmarks of the model, the data pipeline and the evaluation on this machine."""
