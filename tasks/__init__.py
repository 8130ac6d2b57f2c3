"""The steps of a release as Prefect tasks, one outside tool a file; they exchange paths and digests, never tensors."""

import integrations as integrations  # its environment comes before that of any outside tool
