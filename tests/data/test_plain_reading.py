"""Examples equal those of the plain reading in benchmarks/plain_checks.py, which shares no code."""

import json
from typing import Any

import pytest

from benchmarks.chats import conversation
from benchmarks.plain_checks import has_responses, make_example
from lorasweep.data.prepare import prepare_data
from lorasweep.model.base import load_tokenizer
from lorasweep.spec.sweep import DataSpec, ModelSpec

SEQ_LEN = 96
PROBLEMS = [
    ("Ida has 12 hats.  How many pairs?", "12 / 2 = <<12/2=6>>6\n#### 6"),
    ("Größe?", "東京 \U0001f680 is\n\n  far\n#### 1,234.50"),
    ("What does 'don't' mean?\n", "  Do not. " + "And again. " * 40 + "\n#### -7"),
    (" 007 ", "NA\n#### 007"),
]
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ROWS: dict[str, list[dict[str, Any]]] = {
    "questions": [{"question": q, "answer": a} for q, a in PROBLEMS],
    # The indented body follows a line break, with which it would share a token.
    "programs": [
        {"prompt": f'def f(x):\n    """{q}"""\n', "response": f"    return {a!r}\n"}
        for q, a in PROBLEMS
    ],
    "weighted": [
        {
            "messages": [
                {"role": "user", "content": q},
                {"role": "assistant", "content": a[:9], "weight": 0},
                {"role": "user", "content": "More."},
                {"role": "assistant", "content": a, "weight": 1},
            ]
        }
        for q, a in PROBLEMS
    ],
    "chats": [{"messages": conversation(n, q, a)} for n, (q, a) in enumerate(PROBLEMS)],
}


@pytest.mark.parametrize("kind", ROWS)
def test_examples_are_those_of_a_plain_reading(tmp_path, kind):
    tokenizer = load_tokenizer(ModelSpec())
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML
    file = tmp_path / "rows.jsonl"
    lines = [json.dumps(row, ensure_ascii=False) for row in ROWS[kind]]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    spec = DataSpec(path=str(file), heldout=str(file), seq_len=SEQ_LEN)
    tokens = prepare_data(spec, tokenizer, 256, len(tokenizer)).train
    assert len(tokens) == len(PROBLEMS)
    for number, row in enumerate(ROWS[kind]):
        ids, loss = tokens.example(number)
        expected = make_example(row, tokenizer, SEQ_LEN)
        assert expected is not None
        assert (ids.tolist(), loss.tolist()) == (expected.ids, expected.loss)
        shown = {"ids": ids.tolist(), "loss": loss.tolist()}
        assert has_responses(shown, row, tokenizer, SEQ_LEN)
