"""Export to other runtimes, with verification of every written file."""
