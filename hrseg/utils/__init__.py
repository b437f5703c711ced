"""Helpers that every room may use: files, console, text, signals, memory, machine facts.

Nothing here knows about segmentation, and only `memory` imports torch.
"""
