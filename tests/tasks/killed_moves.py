"""Run by a test: one move a store, each in a process that is killed right before a given write to the registry.

Argument: JSON, the addresses of stores for `promote` and for `rollback`; the n-th store's process dies before its n-th
write.
"""

import json
import os
import signal
import sys

from mlflow import MlflowClient

from factpatch.settings.config import RegistrySettings
from tasks.promote import promote, rollback

WRITES = ("set_registered_model_alias", "set_registered_model_tag", "set_model_version_tag")


def die_before(number):
    """Make the process kill itself instead of writing for the n-th time."""
    done = []

    def deadly(write):
        def method(*arguments):
            done.append(arguments)
            if len(done) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return write(*arguments)

        return method

    for name in WRITES:
        setattr(MlflowClient, name, deadly(getattr(MlflowClient, name)))


for action, stores in json.loads(sys.argv[1]).items():
    for number, uri in enumerate(stores, start=1):
        child = os.fork()
        if child == 0:
            die_before(number)
            registry = RegistrySettings(name="atlas", tracking_uri=uri)
            if action == "promote":
                promote(registry, "3", "ann", "better")
            else:
                rollback(registry, "ann", "worse")
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
