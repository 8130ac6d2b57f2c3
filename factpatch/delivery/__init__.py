"""Delivery: a patch in the forms in which models are served, each asked before it counts as made."""
