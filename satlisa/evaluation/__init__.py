"""Answers to scores and a report."""
