"""The places that a search considers, and those that others found good on such a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import yaml
from transformers import PreTrainedModel

from factpatch.models.locations import Location, decoder_blocks, layers_with, locate, roles
from factpatch.settings.config import LocalizationSettings

DEPTHS = (0.9, 1.0, 0.7, 0.5)  # of the layers, the first one 0 and the last one 1
USUAL = ("mlp", "down")  # roles
SPAN_SHARE = 1 / 6  # of the layers, that are written together
SPAN_DEPTHS = (0.9, 0.7)  # of their highest


@dataclass(frozen=True)
class KnownPlace:
    """A published place with its source."""

    location: Location
    source: str


def candidate_locations(model: PreTrainedModel, settings: LocalizationSettings) -> list[Location]:
    """The named modules or roles at every layer that has them, each location once; without names, every role.

    InputError if no layer has a named module.
    """
    _, blocks = decoder_blocks(model)
    having = {module: set(layers_with(model, module)) for module in settings.modules}
    places = (
        f"{layer}:{module}"
        for layer in range(len(blocks))
        for module in (settings.modules or roles(model, layer))
        if not having or layer in having[module]
    )
    return list(dict.fromkeys(locate(model, place) for place in places))


def first_places(model: PreTrainedModel, candidates: Sequence[Location]) -> list[Location]:
    """Those that a search tries first: known places among the candidates, then usual ones."""
    known = [place.location for place in known_places(model) if place.location in candidates]
    return list(dict.fromkeys([*known, *usual_spans(model, candidates), *usual_places(model, candidates)]))


def usual_spans(model: PreTrainedModel, candidates: Sequence[Location]) -> list[Location]:
    """The MLPs' output projections of several layers together, where all of them are candidates: each then moves less,
    and what is written there is answered in more wordings. None in a model of few layers."""
    count = len(decoder_blocks(model)[1])
    length = round(SPAN_SHARE * count)
    single = {candidate.parameters for candidate in candidates}
    tops = [round(depth * (count - 1)) for depth in SPAN_DEPTHS] if length > 1 else []
    having = [top for top in tops if all("down" in roles(model, layer) for layer in range(top - length + 1, top + 1))]
    spans = [locate(model, f"{top - length + 1}-{top}:down") for top in having]
    return [span for span in spans if all((name,) in single for name in span.parameters)]


def usual_places(model: PreTrainedModel, candidates: Sequence[Location]) -> list[Location]:
    """The candidates that usually serve: whole MLPs, then their output projections, at the depths DEPTHS."""
    last = len(decoder_blocks(model)[1]) - 1
    layers = [round(depth * last) for depth in DEPTHS]
    having = {layer: roles(model, layer) for layer in layers}
    wanted = dict.fromkeys((layer, having[layer][role]) for role in USUAL for layer in layers if role in having[layer])
    place = {(candidate.layer, candidate.module): candidate for candidate in candidates}
    return [place[key] for key in wanted if key in place]


def known_places(model: PreTrainedModel) -> list[KnownPlace]:
    """Published places for models of this type, depth and width."""
    config = model.config.get_text_config()
    shape = {"model_type": config.model_type, "layers": len(decoder_blocks(model)[1]), "width": config.hidden_size}
    published = yaml.safe_load((files("factpatch.localization") / "known_places.yaml").read_text(encoding="utf-8"))
    return [
        KnownPlace(locate(model, entry["place"]), entry["source"])
        for entry in published
        if all(entry[key] == value for key, value in shape.items())
    ]
