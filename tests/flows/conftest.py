"""A Prefect server for the tests that run whole flows, and estimates that take no time."""

import pytest


@pytest.fixture(scope="package", autouse=True)
def quick_estimates():
    """The machine's speed is measured for a moment alone, as no test waits for what an estimate says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("factpatch.preflight.machine.MEASURING_SECONDS", 0.01)
        yield


@pytest.fixture(scope="package")
def prefect_home():
    """One temporary Prefect server; starting it takes seconds."""
    from prefect.testing.utilities import prefect_test_harness

    import flows  # noqa: F401  (its environment comes before Prefect's import)

    with prefect_test_harness(server_startup_timeout=120):
        yield
