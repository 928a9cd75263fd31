"""The testbed's tokenizer: byte-level BPE in which each number of the sums is one token."""

from collections.abc import Iterable
from typing import Final

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

VOCABULARY: Final = 2048
EOS: Final = "<|end|>"
PAD: Final = "<|pad|>"

# A word, a number of up to two digits or a run of punctuation, each with the blank before it.
# Numbers follow a blank in stories and in equations alike, so copying one means copying one token.
# Line ends are separate from the indentation after them, so no token spans prompt and response.
_PIECES: Final = r" ?\p{L}+| ?\p{N}{1,2}| ?[^\s\p{L}\p{N}]+|\n+|[^\S\n]+"


def train_tokenizer(documents: Iterable[str]) -> PreTrainedTokenizerFast:
    """Learn the merges from documents; byte-level, so that any text survives a round trip."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[EOS, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=256,
        clean_up_tokenization_spaces=False,
    )
