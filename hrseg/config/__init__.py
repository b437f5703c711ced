"""Configs: the schema, the YAML loader with overrides, and evaluation protocols.

This package does not import torch, so that an invalid config is reported at once.
"""
