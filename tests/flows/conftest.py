"""A Prefect server for the tests that run whole flows."""

import pytest


@pytest.fixture(scope="package")
def prefect_home():
    """One temporary Prefect server; starting it takes seconds."""
    from prefect.testing.utilities import prefect_test_harness

    import flows  # noqa: F401  (its environment comes before Prefect's import)

    with prefect_test_harness(server_startup_timeout=120):
        yield
