"""Commands of the command line: one file each.

`add_arguments` declares the arguments of a command. `run` carries it out and returns an exit code,
or None for 0. A command with subcommands sets `function` for each of them instead of `run`. These
files import torch only inside functions; `_*.py` contain the work and import it.
"""
