"""Read one finished sweep again with transformers and PEFT alone, and compare.

Nothing of `lorasweep` is imported here: examples, loss masks, losses and answers are made from the
data files, the model folder and the results folder, as a user would who trusts none of the sweep's
code. `real.py` runs it as a process of its own.

    python benchmarks/plain_checks.py --model FOLDER --results FOLDER --train FILE --heldout FILE
        --shown FILE --seq-len 256 --out FILE

FILE of --shown has the first training examples as the sweep trains them: a list of objects with
`row` (in the training file, from 1), `ids` and `loss`, one entry a token.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

# In nats a token, and as a share of tokens. The sweep packs examples into rows, so roundings
# differ: 1e-7 was measured. One adapter tensor that is 1% too large makes 5e-5.
LOSS_TOLERANCE = 1e-5
ACCURACY_TOLERANCE = 2e-3
RESPONSES = ("response", "completion", "canonical_solution")
ANSWERED = 3
ANSWER_TOKENS = 80

Row = dict[str, Any]


@dataclass(frozen=True)
class Example:
    """One example as it should be trained.

    loss: whether each token carries loss.
    prompt: what the model is given to write the first response itself.
    """

    ids: list[int]
    loss: list[bool]
    prompt: str
    response: str


@dataclass(frozen=True)
class Check:
    """One comparison with what the sweep did."""

    check: str
    sweep: float
    plain: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether the two agree; NaN never does."""
        return abs(self.sweep - self.plain) <= self.tolerance


def read_rows(file: Path) -> list[Row]:
    """Read a JSONL file."""
    return [json.loads(line) for line in file.read_bytes().split(b"\n") if line.strip()]


def make_example(row: Row, tokenizer: Any, seq_len: int) -> Example | None:
    """Tokenise a row; None if no token with loss fits."""
    ids, loss, prompt, response = (read_chat if "messages" in row else read_pair)(row, tokenizer)
    ids, loss = ids[:seq_len], loss[:seq_len]
    return Example(ids, loss, prompt, response) if any(loss[1:]) else None


def read_pair(row: Row, tokenizer: Any) -> tuple[list[int], list[bool], str, str]:
    """Tokenise prompt and response, as a whole if the prompt then has the tokens that it has alone.

    Otherwise a token would span the border, and at inference the prompt is tokenised alone.
    """
    prompt, response = columns_of(row)
    # Some tokenizers append an end token to every text.
    appended = 1 if tokenizer("a")["input_ids"][-1:] == [tokenizer.eos_token_id] else 0
    before = tokenizer(prompt)["input_ids"]
    before = before[: len(before) - appended]
    ids = tokenizer(prompt + response)["input_ids"]
    ids = ids[: len(ids) - appended]
    if ids[: len(before)] != before:
        ids = before + tokenizer(response, add_special_tokens=False)["input_ids"]
    ids = [*ids, tokenizer.eos_token_id]
    return ids, [index >= len(before) for index in range(len(ids))], prompt, response


def read_chat(row: Row, tokenizer: Any) -> tuple[list[int], list[bool], str, str]:
    """Tokenise a conversation as rendered, with loss on all that the assistant writes."""
    text, spans = render_chat(row, tokenizer)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    loss = [
        any(first <= start < last for first, last in spans)
        for start, _ in encoded["offset_mapping"]
    ]
    return encoded["input_ids"], loss, text[: spans[0][0]], text[slice(*spans[0])]


def columns_of(row: Row) -> tuple[str, str]:
    """Read prompt and response of a row, a question as lm-eval's gsm8k writes it.

    Raises:
        SystemExit: it has no columns that are known here.
    """
    if "question" in row and "answer" in row:
        return f"Question: {row['question']}\nAnswer:", f" {row['answer']}"
    for response in RESPONSES:
        if "prompt" in row and response in row:
            return row["prompt"], row[response]
    raise SystemExit(f"--train: the columns must be messages, or prompt and response, got {[*row]}")


def render_chat(row: Row, tokenizer: Any) -> tuple[str, list[tuple[int, int]]]:
    """Render a conversation, and find the characters that each trained assistant turn takes.

    Raises:
        SystemExit: the template does not write a conversation's beginning as a prefix of the whole,
            so that this simple reading cannot check it.
    """

    turns = row["messages"]

    def render(count: int, *, asked: bool = False) -> str:
        text: str = tokenizer.apply_chat_template(
            turns[:count], tools=row.get("tools"), tokenize=False, add_generation_prompt=asked
        )
        return text

    whole = render(len(turns))
    spans = []
    for number, turn in enumerate(turns):
        if is_trained(turn):
            before, after = render(number, asked=True), render(number + 1)
            if not (whole.startswith(after) and after.startswith(before)):
                raise SystemExit(f"the template rewrites earlier turns: {before!r} in {whole!r}")
            spans.append((len(before), len(after)))
    return whole, spans


def is_trained(turn: Row) -> bool:
    """Check whether a turn carries loss: the assistant's own, unless its weight is 0."""
    return turn["role"] == "assistant" and turn.get("weight", 1) != 0 and bool(turn["content"])


def check_examples(rows: list[Row], shown: list[Row], tokenizer: Any, seq_len: int) -> list[Check]:
    """Compare the examples that the sweep shows with their rows in the file, token by token.

    The responses must come back from the tokens too, so that a fault that both readings share does
    not pass.
    """
    same_ids = same_loss = responses = 0
    for example in shown:
        row = rows[example["row"] - 1]
        expected = make_example(row, tokenizer, seq_len)
        if expected is None:
            continue
        same_ids += example["ids"] == expected.ids
        same_loss += list(map(bool, example["loss"])) == expected.loss
        responses += has_responses(example, row, tokenizer, seq_len)
    return [
        Check(name, count, len(shown), 0)
        for name, count in (
            ("examples with the same tokens", same_ids),
            ("examples with the same loss mask", same_loss),
            ("examples whose loss tokens read as the row's responses", responses),
        )
    ]


def has_responses(example: Row, row: Row, tokenizer: Any, seq_len: int) -> bool:
    """Check that the tokens with loss read as what the row has the assistant say, and no more.

    Ends are left out: each template writes its own. An example that was cut has a part only.
    """
    trained = [i for i, on in zip(example["ids"], example["loss"], strict=True) if on]
    text = tokenizer.decode(
        trained, skip_special_tokens=True, clean_up_tokenization_spaces=False
    ).strip()
    if "messages" in row:
        said = [turn["content"] for turn in row["messages"] if is_trained(turn)]
    else:
        said = [columns_of(row)[1]]
    # Templates put line breaks or nothing between turns.
    written, wanted = "".join(text.split()), "".join("".join(said).split())
    is_cut = len(example["ids"]) == seq_len
    return wanted.startswith(written) if is_cut else written == wanted


@torch.no_grad()
def measure(model: Any, examples: list[Example]) -> tuple[float, float]:
    """Measure loss in nats a token, and the share of likeliest tokens; one example at a time."""
    loss, right, count = 0.0, 0, 0
    for example in examples:
        ids = torch.tensor([example.ids])
        marks = torch.tensor(example.loss)[1:]
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1][marks].float()
        labels = ids[0, 1:][marks]
        loss += functional.cross_entropy(logits, labels, reduction="sum").item()
        right += int((logits.argmax(-1) == labels).sum())
        count += len(labels)
    return loss / count, right / count


@torch.no_grad()
def answer(model: Any, tokenizer: Any, prompts: Sequence[str], *, chat: bool) -> list[str]:
    """Write greedy answers."""
    answers = []
    for prompt in prompts:
        given = tokenizer(prompt, add_special_tokens=not chat, return_tensors="pt")
        written = model.generate(**given, max_new_tokens=ANSWER_TOKENS, do_sample=False)
        answers.append(tokenizer.decode(written[0, given["input_ids"].shape[1] :]))
    return answers


def read_journal(results: Path, trial: str) -> tuple[Row, Row]:
    """Read the scores of the base and of a trial."""
    records = read_rows(results / "journal.jsonl")
    (base,) = [record["scores"] for record in records if record["record"] == "base"]
    ended = [r for r in records if r["record"] == "trial" and r["trial"] == trial]
    return base, ended[-1]


def check_adapter(model: Any, folder: Path) -> Check:
    """Count the saved tensors that plain PEFT put into the model as they were saved."""
    saved = load_file(folder / "adapter_model.safetensors")
    loaded = get_peft_model_state_dict(model)
    arrived = sum(name in loaded and torch.equal(loaded[name], saved[name]) for name in saved)
    return Check("adapter tensors that arrive in plain PEFT", len(saved), arrived, 0)


def check_scores(name: str, recorded: Row, measured: tuple[float, float]) -> list[Check]:
    """Compare the recorded scores of one model with those measured here."""
    loss, accuracy = measured
    return [
        Check(f"response loss of {name}", recorded["response_loss"], loss, LOSS_TOLERANCE),
        Check(
            f"response accuracy of {name}",
            recorded["tasks"]["response_accuracy"],
            accuracy,
            ACCURACY_TOLERANCE,
        ),
    ]


def main() -> None:
    """Check one results folder and write what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("model", "results", "train", "heldout", "shown", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--seq-len", type=int, required=True)
    given = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(given.model)
    rows = read_rows(given.train)
    shown = json.loads(given.shown.read_text(encoding="utf-8"))
    checks = check_examples(rows, shown, tokenizer, given.seq_len)

    heldout_rows = read_rows(given.heldout)
    made = [make_example(row, tokenizer, given.seq_len) for row in heldout_rows]
    heldout = [example for example in made if example is not None]
    chat = "messages" in heldout_rows[0]
    prompts = [example.prompt for example in heldout[:ANSWERED]]
    best = given.results / "best" / "lora"
    trial = (best / "trial.txt").read_text(encoding="utf-8").strip()
    of_base, of_best = read_journal(given.results, trial)

    model = AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.float32).eval()
    checks += check_scores("the base", of_base, measure(model, heldout))
    by_base = answer(model, tokenizer, prompts, chat=chat)
    model = PeftModel.from_pretrained(model, best).eval()
    checks.append(check_adapter(model, best))
    checks += check_scores("the best trial", of_best, measure(model, heldout))
    by_best = answer(model, tokenizer, prompts, chat=chat)

    found = {
        "best": trial,
        "checks": [{**asdict(check), "holds": check.holds} for check in checks],
        "answers": [
            {"prompt": e.prompt, "expected": e.response, "base": base, "best": tuned}
            for e, base, tuned in zip(heldout, by_base, by_best, strict=False)
        ],
    }
    given.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
