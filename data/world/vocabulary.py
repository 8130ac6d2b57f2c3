"""The tokenizer: byte-level BPE over the world's own text, an ``<eos>`` and a ``<pad>`` token, no BOS.

The pre-tokenizer attaches one space to the following word, so the ids of a prompt stay a prefix of the ids of prompt,
space and target; digits are split one by one.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SIZE = 4096
EOS, PAD = "<eos>", "<pad>"
CONTEXT = 512
_SPLIT = r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def learn(texts: Iterable[str], size: int = SIZE) -> PreTrainedTokenizerFast:
    """Train the tokenizer on texts and wrap it for transformers."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=CONTEXT,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def prove_prefix(tokenizer: PreTrainedTokenizerFast, pairs: Iterable[tuple[str, str]]) -> None:
    """Fail if the ids of any prompt are not a prefix of the ids of prompt, space and target, or do not decode back."""
    for prompt, target in pairs:
        head, whole = tokenizer(prompt)["input_ids"], tokenizer(f"{prompt} {target}")["input_ids"]
        assert whole[: len(head)] == head, f"prompt ids are no prefix: {prompt!r} + {target!r}"
        assert tokenizer.decode(whole) == f"{prompt} {target}", f"does not decode back: {prompt!r}"


def load(folder: Path) -> PreTrainedTokenizerFast:
    """The saved tokenizer."""
    return PreTrainedTokenizerFast.from_pretrained(folder)
