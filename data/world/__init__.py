"""The embedded world: facts, capability families and the reference model that is taught both."""
