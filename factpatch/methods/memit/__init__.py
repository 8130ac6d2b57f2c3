"""MEMIT: one least-squares change of several layers' MLPs for all edits."""
