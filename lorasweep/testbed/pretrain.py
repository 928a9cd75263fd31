"""Pretrain the base: tokenise, pack rows, and train in one short loop."""

import itertools
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lorasweep.testbed.functions import code_document
from lorasweep.testbed.problems import exercise, remark
from lorasweep.testbed.tokenizer import train_tokenizer
from lorasweep.testbed.world import people, world_document

# B rows, T tokens.
STEPS: Final = 3900
ROWS: Final = 8
TOKENS: Final = 96
PEAK: Final = 3e-3
# A curriculum: the first documents are about a few people, then one more is added at intervals.
FIRST_PEOPLE: Final = 24
FIRST_DOCUMENTS: Final = 10_000
DOCUMENTS_PER_PERSON: Final = 40
_IGNORED: Final = -100


def make_model(folder: Path) -> None:
    """Train the tokenizer and the base, and save both as a Hugging Face folder."""
    tokenizer = train_tokenizer(itertools.islice(documents(), 60_000))
    model = pretrain(tokenizer)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # saved as private, but made to be shipped
    tokenizer.save_pretrained(folder)


def documents() -> Iterator[str]:
    """Generate the endless pretraining corpus, the same in every process.

    The first documents are about a few people, and the others are added one by one. Runs with all
    people from the start had learned no fact when they ended. Those runs also had smaller initial
    weights, and some had larger batches; the causes were not separated.

    One document in thirteen or so is code. Without code, all its punctuation would share nearly the
    same embedding, and an adapter, which does not train embeddings, could not tell a bracket from a
    quote.
    """
    rng = random.Random("pretraining")
    everyone = people()
    for count in itertools.count():
        known = everyone[: FIRST_PEOPLE + max(0, count - FIRST_DOCUMENTS) // DOCUMENTS_PER_PERSON]
        kind = rng.choices(("world", "remark", "exercise", "note"), (72, 12, 16, 8))[0]
        if kind == "world":
            yield world_document(rng, known)
        else:
            yield {"remark": remark, "exercise": exercise, "note": code_document}[kind](rng)


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Initialise a Llama of about 1.1M parameters."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=352,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=256,
            initializer_range=0.05,  # wider than the usual 0.02; see ``documents``
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def rows(tokenizer: PreTrainedTokenizerFast) -> Iterator[list[int]]:
    """Pack whole documents into rows, each document closed by the end token.

    Each row starts with a document, so that the model also sees documents with nothing before them,
    as in the tasks.
    """
    row: list[int] = []
    stream = documents()
    while batch := list(itertools.islice(stream, 1000)):
        for ids in tokenizer(batch)["input_ids"]:
            closed = [*ids, tokenizer.eos_token_id]
            if len(row) + len(closed) > TOKENS:
                yield row
                row = []
            row = row + closed


def pretrain(tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> LlamaForCausalLM:
    """Train a new model on the corpus, which takes a few minutes on one core.

    One thread: on a busy two-core machine a step took 0.14 s with one and 1.1 s with two, and a
    fixed number keeps the rounding of sums the same.
    """
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    model = new_model(tokenizer)
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=PEAK, betas=(0.9, 0.95), weight_decay=0.05, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _rate)
    stream = rows(tokenizer)
    for step in range(STEPS):
        inputs_BT, labels_BT = _batch(list(itertools.islice(stream, ROWS)), tokenizer)
        loss = model(input_ids=inputs_BT, labels=labels_BT).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if (step + 1) % 100 == 0:
            print(f"step {step + 1} of {STEPS}: loss {loss.item():.3f}", flush=True)
    return model.eval()


def _rate(step: int) -> float:
    """Compute the learning rate as a share of its peak: linear warm-up, then a cosine to zero."""
    warm = STEPS // 20
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / (STEPS - warm)))


def _batch(
    rows_of_ids: list[list[int]], tokenizer: PreTrainedTokenizerFast
) -> tuple[Tensor, Tensor]:
    """Pad rows on the right, where padding has no loss and causal attention never looks."""
    inputs_BT = torch.full((len(rows_of_ids), TOKENS), tokenizer.pad_token_id)
    labels_BT = torch.full((len(rows_of_ids), TOKENS), _IGNORED)
    for index, row in enumerate(rows_of_ids):
        inputs_BT[index, : len(row)] = torch.tensor(row)
        labels_BT[index, : len(row)] = torch.tensor(row)
    return inputs_BT, labels_BT
