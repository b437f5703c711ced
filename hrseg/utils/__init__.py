"""General functions for all packages: files, console, text, signals, memory, system, validation.

They are independent of segmentation, and only `memory` imports torch.
"""
