"""Checkpoint files: what a folder of safetensors holds, and how the parameters of a model lie in it."""
