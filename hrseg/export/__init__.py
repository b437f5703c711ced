"""Export of models to other runtimes, with verification of each exported file."""
