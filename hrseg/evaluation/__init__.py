"""Evaluation of results: stored scores, analysis, the HTML report, and submissions."""
