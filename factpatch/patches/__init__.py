"""The patch: its folder, how it is applied and undone, and the certificate that proves it."""
