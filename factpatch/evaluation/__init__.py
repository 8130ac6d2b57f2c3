"""Measuring: answers by free generation, metrics with intervals, gates."""
