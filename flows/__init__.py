"""Compositions of tasks, and the command line."""

import tasks as tasks  # its environment comes before Prefect's import
