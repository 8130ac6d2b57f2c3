"""lm-evaluation-harness as the capability step wants it: quiet, on a model in memory, and no slower than need be."""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
from collections.abc import Iterator
from typing import Any

import datasets
import huggingface_hub.constants
import lm_eval.api.task
import lm_eval.utils
import torch
from huggingface_hub import get_session
from lm_eval.models.huggingface import HFLM
from transformers.cache_utils import DynamicCache, DynamicLayer

from factpatch.addresses import HUB_TIMEOUT
from factpatch.evaluation.capability import plain_greedy
from factpatch.models.forward import whole_head_product
from factpatch.models.loading import LoadedModel
from factpatch.progress import Progress

WHOLE_TEXTS = 4  # paragraphs a pass: predictions at every position fill memory, and more at once are slower
WORTH_SHARING = 8  # tokens that all rows begin with


class QuietModel(HFLM):
    """A loaded model as the harness wants it, telling how many requests are answered in place of the harness's bars."""

    def __init__(self, loaded: LoadedModel, batch_size: int, progress: Progress | None) -> None:
        tokenizer = copy.deepcopy(loaded.tokenizer)  # the harness gives it a padding token
        super().__init__(pretrained=loaded.model, tokenizer=tokenizer, batch_size=batch_size)
        self._progress, self._done, self._asked = progress, 0, 0

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[Any]:
        self._asked += len(requests)
        return super().loglikelihood(requests, disable_tqdm=True)

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = True) -> list[Any]:
        self._asked += len(requests)
        with replaced_attribute(self, "batch_size_per_gpu", min(self.batch_size_per_gpu, WHOLE_TEXTS)):
            return super().loglikelihood_rolling(requests, disable_tqdm=True)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> list[str]:
        self._asked += len(requests)
        return super().generate_until(requests, disable_tqdm=True)

    def _loglikelihood_tokens(self, *arguments: Any, **options: Any) -> Any:
        return super()._loglikelihood_tokens(*arguments, **{**options, "disable_tqdm": True})

    def _model_call(self, inps: Any, *arguments: Any, **options: Any) -> Any:
        shared = 0 if arguments or options or self.backend != "causal" else _shared_start(inps)
        result = self._after_start(inps, shared) if shared >= WORTH_SHARING else None
        return self._counted(len(inps), super()._model_call(inps, *arguments, **options) if result is None else result)

    def _after_start(self, inps: torch.Tensor, shared: int) -> torch.Tensor | None:
        """Predictions from the end of a start that all rows share, which is passed once: worked examples are most of
        what such tasks ask. The harness counts positions from the end of what it gets. None where the model keeps
        something else than keys and values.
        """
        with torch.no_grad():
            cache = self.model(inps[:1, :shared], use_cache=True).past_key_values
            if not isinstance(cache, DynamicCache) or not all(
                isinstance(layer, DynamicLayer) for layer in cache.layers
            ):
                return None
            cache.batch_repeat_interleave(len(inps))
            return self.model(inps[:, shared:], past_key_values=cache, use_cache=True).logits

    def _model_generate(self, context: Any, *arguments: Any, **options: Any) -> Any:
        return self._counted(len(context), super()._model_generate(context, *arguments, **options))

    def _counted(self, rows: int, result: Any) -> Any:
        self._done += rows
        if self._progress:
            self._progress(min(self._done, self._asked), self._asked)
        return result


def _shared_start(ids_BT: torch.Tensor) -> int:
    """How many tokens all rows begin with, less the one whose prediction may differ."""
    alike = (ids_BT == ids_BT[:1]).all(0).tolist()
    return max(0, (alike.index(False) if False in alike else len(alike)) - 1) if len(ids_BT) > 1 else 0


@contextlib.contextmanager
def quiet_model(loaded: LoadedModel, batch_size: int, progress: Progress | None) -> Iterator[QuietModel]:
    """A loaded model for the harness, which has its own ways of generating again when the block ends."""
    plain = plain_greedy(loaded.model.generation_config)
    with (
        quiet_harness(),
        whole_head_product(loaded.model),
        replaced_attribute(loaded.model, "generation_config", plain),
    ):
        yield QuietModel(loaded, batch_size, progress)


@contextlib.contextmanager
def quiet_harness() -> Iterator[None]:
    """Run a block with lm-evaluation-harness that shows no log messages and bars, and that compiles each template once
    instead of for every item (a fifth of the time with a small model)."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    templates = lm_eval.utils.env
    with (
        replaced_attribute(templates, "from_string", functools.cache(templates.from_string)),
        replaced_attribute(lm_eval.api.task, "tqdm", lambda items, **_: items),
    ):
        yield


@contextlib.contextmanager
def replaced_attribute(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Give an object's attribute another value while the block runs; for what the harness and the hub's client offer no
    option for."""
    usual = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, usual)


@contextlib.contextmanager
def data_at_hand(asked: bool) -> Iterator[None]:
    """Where the hub is wanted but out of reach, only what was downloaded before counts: asking again and again for
    every file would take minutes."""
    offline = asked and not _hub_answers()
    with contextlib.ExitStack() as stack:
        for module in (datasets.config, huggingface_hub.constants) if offline else ():
            stack.enter_context(replaced_attribute(module, "HF_HUB_OFFLINE", True))
        yield


def _hub_answers() -> bool:
    try:
        get_session().head(huggingface_hub.constants.ENDPOINT, timeout=HUB_TIMEOUT)
    except Exception:  # whatever the network raises
        return False
    return True
