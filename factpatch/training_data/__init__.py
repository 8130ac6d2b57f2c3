"""Rows that join the edits in training, and what is held out of it: augmentation, preservation, probes."""
