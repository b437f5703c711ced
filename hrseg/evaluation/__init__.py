"""Evaluation results: stored scores, analysis, HTML report and submissions."""
