"""Notifications: `python -m flows.notify TYPE/NAME` has that block of Prefect told of runs that need a person.

The block (Slack, e-mail, a webhook, …) is made on Prefect's page, or with its class. Needs PREFECT_API_URL.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from factpatch.errors import InputError
from flows.console import check_prefect, exit_code

AUTOMATION_NAME = "tell of factpatch's runs"  # of the automation
FLOWS = ["release", "monitor", "rollback"]
STATES = ["Failed", "Crashed", "TimedOut", "Refused", "Decayed"]
SUBJECT = "factpatch: {{ flow.name }} {{ flow_run.state.name }}"
BODY = "Run {{ flow_run.name }} of {{ flow.name }}: {{ flow_run.state.message }}"


def notify(block: str) -> None:
    """Make the automation that tells `block` (such as slack-webhook/team), in place of an earlier one.

    Raises InputError if the server does not hold such a block.
    """
    from prefect.automations import Automation
    from prefect.client.orchestration import get_client
    from prefect.events.actions import SendNotification
    from prefect.events.schemas.automations import EventTrigger, Posture
    from prefect.exceptions import ObjectNotFound

    kind, _, name = block.partition("/")
    with get_client(sync_client=True) as client:
        try:
            document = client.read_block_document_by_name(name, kind, include_secrets=False)
        except ObjectNotFound as error:
            raise InputError(f"Prefect holds no block '{block}'; 'prefect block ls' lists those there are") from error
        trigger = EventTrigger(
            expect={f"prefect.flow-run.{state}" for state in STATES},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related={"prefect.resource.role": "flow", "prefect.resource.name": FLOWS},
            posture=Posture.Reactive,
            threshold=1,
        )
        action = SendNotification(block_document_id=document.id, subject=SUBJECT, body=BODY)
        for earlier in client.read_automations_by_name(AUTOMATION_NAME):
            client.delete_automation(earlier.id)
        Automation(name=AUTOMATION_NAME, trigger=trigger, actions=[action]).create()


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m flows.notify", description="Tell a block of runs that need you.")
    parser.add_argument("block", metavar="TYPE/NAME", help="a block of Prefect, such as slack-webhook/team")
    args = parser.parse_args(arguments)

    def work() -> int:
        if not os.environ.get("PREFECT_API_URL"):
            raise InputError("PREFECT_API_URL names no server; set it to the one that shall tell")
        check_prefect()
        notify(args.block)
        print(f"'{args.block}' is told of runs that end as {', '.join(STATES)}")
        return 0

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
