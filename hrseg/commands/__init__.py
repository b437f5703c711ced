"""Commands of the command line: one module per command.

`add_arguments` declares the arguments of a command. `run` executes it and returns an exit code, or
None for 0. A command with subcommands sets `function` for each of them instead of `run`. These
modules import torch only inside functions. The modules `_*.py` contain the work and import torch.
"""
