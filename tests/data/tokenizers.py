"""Tokenizers of the kinds that models have, trained on a few words."""

from __future__ import annotations

from typing import Any

WORDS = (
    "yes no the answer is two dots and a line of text 2 02134 1.10 NA é 日本 😀 def f(x): return x"
)
SPECIAL = ["<s>", "</s>", "<unk>"]


def trained_tokenizer(kind: str) -> Any:
    """Train a tokenizer on a few words.

    Args:
        kind: `byte-level`, as GPT-2 and Llama 3; `legacy`, as Llama 2: SentencePiece with a blank
            before each text; `metaspace`, the same as a pre-tokenizer; `bare`, without the blank;
            `unigram`, as T5 and XLNet; `wordpiece`, as BERT.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    text = [WORDS, *WORDS.split(), *(f"{word} {word}\n" for word in WORDS.split())] * 4
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    sizes: dict[str, Any] = {"vocab_size": 500, "special_tokens": SPECIAL, "show_progress": False}
    trainer: Any
    if kind == "byte-level":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(initial_alphabet=alphabet, **sizes)
    elif kind == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(**sizes)
    elif kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
        trainer = trainers.UnigramTrainer(unk_token="<unk>", **sizes)
    else:
        pieces = [f"<0x{byte:02X}>" for byte in range(256)]
        tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        if kind == "legacy":
            tokenizer.normalizer = normalizers.Sequence(
                [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
            )
            strip = [decoders.Strip(content=" ", left=1)]
        else:
            scheme = "first" if kind == "metaspace" else "never"
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
            strip = [decoders.Strip(content=" ", left=1)] if kind == "metaspace" else []
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
        )
        sizes["special_tokens"] = [*SPECIAL, *pieces]
        sizes["vocab_size"] = 500
        trainer = trainers.BpeTrainer(**sizes)
    tokenizer.train_from_iterator(text, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
