"""Rewrite question/answer rows as conversations: with and without a system turn, one answer or two.

    python benchmarks/chats.py --data gsm8k/train-2000.jsonl --rows 400 --out chats.jsonl

An answer must end in a line `#### RESULT`, as GSM8K's do. Every other row asks for the result in a
turn of its own, so that two assistant turns carry loss; of each pair of rows one has a system turn.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

SYSTEM = "You solve word problems step by step."
FOLLOW_UP = "So what is the result? Write the number alone."

Turn = dict[str, str]


def conversation(number: int, question: str, answer: str) -> list[Turn]:
    """Write one row as turns; its number decides which kind it becomes."""
    solution, mark, result = answer.rpartition("\n#### ")
    if not mark:
        raise SystemExit(f"--data: row {number + 1} must end in a line '#### RESULT'")
    turns = [{"role": "system", "content": SYSTEM}] if number % 4 >= 2 else []
    turns.append({"role": "user", "content": question})
    if number % 2 == 0:
        return [*turns, {"role": "assistant", "content": answer}]
    return [
        *turns,
        {"role": "assistant", "content": solution},
        {"role": "user", "content": FOLLOW_UP},
        {"role": "assistant", "content": result},
    ]


def main() -> None:
    """Rewrite the first rows of a file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="JSONL with question and answer")
    parser.add_argument("--rows", type=int, default=400, help="rewrite this many; default 400")
    parser.add_argument("--out", type=Path, required=True, help="JSONL file for the conversations")
    arguments = parser.parse_args()
    # As bytes, since in text other characters than a line feed may end a line too.
    lines = arguments.data.read_bytes().split(b"\n")
    rows = [json.loads(line) for line in lines if line.strip()][: arguments.rows]
    with arguments.out.open("w", encoding="utf-8", newline="\n") as out:
        for number, row in enumerate(rows):
            turns = conversation(number, row["question"], row["answer"])
            out.write(json.dumps({"messages": turns}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
