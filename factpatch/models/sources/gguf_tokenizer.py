"""The tokenizer that a GGUF file describes: transformers', with what its reader leaves out, or refused."""

from __future__ import annotations

from pathlib import Path

from jinja2 import TemplateError
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS, GGUF_TOKENIZER_TYPES

from factpatch.errors import InputError
from factpatch.models.sources.header import Header

# How text is split before byte pairs are merged, by `tokenizer.ggml.pre`, as llama.cpp does. transformers knows some
# by name and takes GPT-2's way for all others.
GPT2 = {"gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling"}
GPT2_AND_DIGITS = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}
WHOLE_WORDS = {"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"}
# ^ a piece that is a token is taken as it is, and text begins with BOS unless the file says otherwise
TURN_ENDS = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")


def read_tokenizer(file: Path, header: Header) -> PreTrainedTokenizerBase:
    """The tokenizer with its special tokens and chat template. InputError for one that would split text otherwise."""
    kind = header.metadata.get("tokenizer.ggml.model")
    if kind not in GGUF_TOKENIZER_TYPES:
        told = "no tokenizer" if kind is None else f"a tokenizer of kind '{kind}', which transformers cannot read"
        raise InputError(f"'{file}' holds {told}; give the model's folder of safetensors")
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name, local_files_only=True)
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"'{file}' holds a tokenizer that transformers cannot read: {reason}") from error
    if kind == "gpt2":
        _complete_split(file, header, tokenizer)
    _check_beginning(file, header, tokenizer)
    if tokenizer.eos_token_id is None:
        raise InputError(f"'{file}' names no token that ends a text (tokenizer.ggml.eos_token_id)")
    return tokenizer


def _complete_split(file: Path, header: Header, tokenizer: PreTrainedTokenizerBase) -> None:
    """Make a byte-level tokenizer split as the file says."""
    way = header.metadata.get("tokenizer.ggml.pre")
    backend = tokenizer.backend_tokenizer
    if way in GPT2_AND_DIGITS:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    elif way not in GPT2 and way not in GGUF_PRE_TOKENIZER_SPLITS:
        told = "does not say how its tokenizer splits text" if way is None else f"splits text by the rules '{way}'"
        raise InputError(
            f"'{file}' {told} (tokenizer.ggml.pre), which transformers cannot follow; give the model's folder of "
            "safetensors"
        )
    if way in WHOLE_WORDS:
        backend.model.ignore_merges = True


def _check_beginning(file: Path, header: Header, tokenizer: PreTrainedTokenizerBase) -> None:
    """InputError unless a text begins with BOS, and with a blank, as the file says."""
    metadata = header.metadata
    kind, way = metadata["tokenizer.ggml.model"], metadata.get("tokenizer.ggml.pre")
    ids = tokenizer("a")["input_ids"]
    wanted = metadata.get("tokenizer.ggml.add_bos_token", kind == "llama" or way in WHOLE_WORDS)
    if (ids[:1] == [tokenizer.bos_token_id]) != wanted:
        raise InputError(f"'{file}': add_bos_token is {wanted}, and transformers' tokenizer does otherwise")
    blank = tokenizer.convert_ids_to_tokens(tokenizer("a", add_special_tokens=False)["input_ids"])[0].startswith("▁")
    if kind == "llama" and blank != metadata.get("tokenizer.ggml.add_space_prefix", True):
        raise InputError(f"'{file}': add_space_prefix is {not blank}, and transformers' tokenizer does otherwise")


def end_ids(tokenizer: PreTrainedTokenizerBase, header: Header) -> int | list[int]:
    """Ids of the tokens that end an answer: of a text, and of a turn in a chat if that is another."""
    stated = [header.metadata[key] for key in TURN_ENDS if key in header.metadata]
    ids = sorted({*stated, *_turn_end(tokenizer)})
    return ids[0] if len(ids) == 1 else ids


def _turn_end(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The special token that the chat template puts right after an answer, if it does."""
    if not tokenizer.chat_template:
        return []
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "answer"}]
    try:
        text = str(tokenizer.apply_chat_template(turns, tokenize=False))
    except (TemplateError, TypeError, ValueError):  # a template that wants more than plain turns
        return []
    after = tokenizer(text.rpartition("answer")[2].lstrip(), add_special_tokens=False)["input_ids"][:1]
    known = tokenizer.added_tokens_decoder
    return [token for token in after if token in known and known[token].special]
