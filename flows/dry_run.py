"""`factpatch edit --dry-run`: what the edits would take, from the model's configuration and tokenizer alone."""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from factpatch.errors import InputError
from factpatch.settings.config import Settings


def tell_costs(args: argparse.Namespace, settings: Settings) -> int:
    """Print memory, disk, bytes read, operations and seconds; of a device that `--device-rates` names, if it does."""
    if not args.dry_run:
        raise InputError("--device-rates is for --dry-run; a run measures the device that it has")
    if settings.localization.location is None:
        raise InputError("--dry-run needs --location LAYER:MODULE, as nothing is searched")
    from factpatch.edits.accepted import accepted_to_write
    from factpatch.preflight.dry_run import describe_dry_run, dry_run
    from factpatch.preflight.rates import named_rates
    from tasks.validate import validate

    rates = named_rates(args.device_rates) if args.device_rates else None
    with TemporaryDirectory() as folder:
        if args.edits:
            validate.fn(folder, settings)
        edits = accepted_to_write(Path(folder if args.edits else args.output))
    for needed in dry_run(settings, edits, settings.localization.location, rates):
        print("\n".join(describe_dry_run(needed, len(edits), settings.model.device)))
    return 0
