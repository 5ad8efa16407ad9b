"""Networks of timm by name, with errors that say what to change."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import timm

from datamodules.files.errors import UserError


def timm_network(
    architecture: str, model_args: Mapping[str, Any] | None = None, **options: Any
) -> Any:
    """A network of timm.

    Args:
        architecture: timm's name, perhaps with the tag of its weights.
        model_args: further arguments that the user gave, such as `act_layer: gelu`.
        **options: further arguments of `timm.create_model`, which the user cannot change.

    Raises:
        UserError: if timm has no such network, or the network does not take the user's arguments.
    """
    if not timm.is_model(architecture):
        close = ", ".join(get_close_matches(architecture, timm.list_models(), 5))
        raise UserError(
            f"timm has no network '{architecture}'; close names: {close or 'none'}, all: "
            "timm.list_models()"
        )
    given = dict(model_args or {})
    if fixed := sorted(given.keys() & options.keys()):
        raise UserError(f"leave {', '.join(fixed)} out of the arguments of '{architecture}'")
    try:
        return timm.create_model(architecture, **given, **options)
    except TypeError as error:
        if not given:
            raise
        raise UserError(f"'{architecture}' of timm does not take {given} ({error})") from None
