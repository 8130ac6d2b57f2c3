"""The settings as they may be stored and shown: without passwords."""

from __future__ import annotations

from typing import Any

from factpatch.addresses import without_password
from factpatch.settings.config import Settings, to_dict


def shown_settings(settings: Settings) -> dict[str, Any]:
    """The settings as they may be kept with a patch and shown: without the password of the registry's address."""
    values = to_dict(settings)
    address = values["registry"]["tracking_uri"]
    return values | {"registry": values["registry"] | {"tracking_uri": address and without_password(address)}}
