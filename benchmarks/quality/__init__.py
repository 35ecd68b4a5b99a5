"""Trials that compare settings for a given training time, and the quality tables of the README."""
