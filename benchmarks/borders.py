"""Do the tokens of a text decode to it, and is loss on its responses alone? Generated rows.

Pairs of prompt and response, and texts of several parts as of conversations, are tokenised with
small tokenizers of six kinds, trained on a few words. Of each row is counted: whether its tokens
decode to what the tokenizer makes of the whole text, and to the text itself, where the tokenizer
can write it at all; and whether what carries loss decodes to the parts with loss. `apart` counts
the rows that were right when prompt and response were tokenised apart and joined.

    python -m benchmarks.borders --out benchmarks/results/borders.json
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

from lorasweep.data.borders import tokenise_parts
from lorasweep.data.example import Example
from lorasweep.service.examples import decoded_parts
from lorasweep.store.environment import environment
from lorasweep.store.paths import write_atomically
from tests.data.tokenizers import WORDS, trained_tokenizer

KINDS = ("byte-level", "legacy", "metaspace", "bare", "unigram", "wordpiece")
EXACT = ("byte-level", "legacy", "bare")  # these can write every text
BLANKS = (" ", "  ", "\n", "\n\n", "\t", "\r\n")
PIECES = (
    *WORDS.split(),
    *BLANKS,
    *BLANKS,
    ":",
    "Answer:",
    "    return",
    "'s",
    ".",
    " the",
    "؟",
    "#",
)


def drawn_text(rng: random.Random, least: int) -> str:
    """Draw a text of words, blanks and signs."""
    return "".join(rng.choices(PIECES, k=rng.randint(least, 6)))


def drawn_example(rng: random.Random, shape: str) -> Example:
    """Draw a pair, or a text in which every second part carries loss."""
    if shape == "pair":
        return Example.pair(drawn_text(rng, 0), drawn_text(rng, 1))
    text = ""
    spans = []
    for _ in range(rng.randint(1, 3)):
        text += drawn_text(rng, 1)
        answer = drawn_text(rng, 1)
        spans.append((len(text), len(text) + len(answer)))
        text += answer
    return Example(text + drawn_text(rng, 0), tuple(spans), rendered=True)


def decode(tokenizer: Any, ids: list[int]) -> str:
    """Decode tokens without tidying the text."""
    text: str = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    return text


def run_arm(kind: str, shape: str, rows: int) -> dict[str, Any]:
    """Tokenise generated rows with one kind of tokenizer."""
    rng = random.Random(f"{kind} {shape}")
    tokenizer = trained_tokenizer(kind)
    examples = [drawn_example(rng, shape) for _ in range(rows)]
    started = time.perf_counter()
    tokenised = tokenise_parts(examples, tokenizer)
    seconds = time.perf_counter() - started
    counts = dict.fromkeys(("as_whole", "writable", "exact", "learned", "apart"), 0)
    for example, (ids, loss) in zip(examples, tokenised, strict=True):
        whole = decode(tokenizer, tokenizer(example.text)["input_ids"])
        counts["as_whole"] += decode(tokenizer, ids) == whole
        parts = [example.prompt, *(example.text[start:end] for start, end in example.spans)]
        apart = [
            t for part in parts for t in tokenizer(part, add_special_tokens=False)["input_ids"]
        ]
        counts["apart"] += shape == "pair" and decode(tokenizer, apart) == example.text
        if whole == example.text:
            counts["writable"] += 1
            counts["exact"] += decode(tokenizer, ids) == example.text
            learned = [part.text for part in decoded_parts(ids, loss, tokenizer) if part.loss]
            counts["learned"] += "".join(learned) == example.response
    return {"arm": f"{kind}, {shape}", "rows": rows, **counts, "wall_s": round(seconds, 3)}


def main() -> None:
    """Run all arms, print them, and write them if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rows", type=int, default=2500, help="of each of the twelve arms")
    options = parser.parse_args()
    arms = [run_arm(kind, shape, options.rows) for kind in KINDS for shape in ("pair", "parts")]
    for arm in arms:
        print(", ".join(f"{name} {value}" for name, value in arm.items()))
    if options.out:
        content = {"environment": environment(), "arms": arms}
        write_atomically(options.out, json.dumps(content, indent=2) + "\n")
    broken = [
        arm
        for arm in arms
        if arm["as_whole"] < arm["rows"]
        or arm["exact"] < arm["writable"]
        or (arm["arm"].partition(",")[0] in EXACT and arm["learned"] < arm["writable"])
    ]
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
