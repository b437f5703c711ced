"""Synthetic street scenes, drawn on demand for demos and tests."""
