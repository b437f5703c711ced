"""Configs: their schema, the YAML loader with overrides, and evaluation protocols.

This room imports no torch, so that a mistake in a config is answered at once.
"""
