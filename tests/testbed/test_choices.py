"""The source tasks have the schemas of their models and exactly one right answer."""

import json
import re
from typing import Any

import pytest

from lorasweep.testbed import TASKS
from lorasweep.testbed.lexicon import ATTRIBUTES
from lorasweep.testbed.world import MEETINGS, QUESTIONS, people

PEOPLE = {person.name: person for person in people()}


def items(task: str) -> list[dict[str, Any]]:
    text = (TASKS / f"testbed_{task}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_scenes_have_the_hellaswag_schema_and_end_with_the_deed_of_the_fact() -> None:
    deeds = {v.deed: (a, v) for a, values in ATTRIBUTES.items() for v in values}
    for item in items("hellaswag"):
        assert list(item) == ["ctx", "endings", "label"]
        assert len(set(item["endings"])) == 4
        (name,) = [word for word in item["ctx"].split() if word in PEOPLE]
        facts = PEOPLE[name].facts
        endings = [deeds[ending.removesuffix(".")] for ending in item["endings"]]
        true = [
            index for index, (attribute, value) in enumerate(endings) if facts[attribute] == value
        ]
        assert true == [int(item["label"])]


def test_questions_have_the_arc_schema_and_one_true_answer() -> None:
    patterns = {
        attribute: re.compile(re.escape(form).replace(r"\{name\}", r"(\w+)"))
        for attribute, form in QUESTIONS.items()
    }
    for item in items("arc"):
        assert list(item) == ["question", "choices", "answerKey"]
        assert item["choices"]["label"] == ["A", "B", "C", "D"]
        assert len(set(item["choices"]["text"])) == 4
        ((attribute, match),) = [
            (attribute, match)
            for attribute, pattern in patterns.items()
            if (match := pattern.fullmatch(item["question"]))
        ]
        noun = PEOPLE[match.group(1)].facts[attribute].noun
        assert item["choices"]["text"]["ABCD".index(item["answerKey"])] == noun
        assert item["choices"]["text"].count(noun) == 1


def test_blanks_have_the_winogrande_schema_and_fit_one_name_only() -> None:
    for item in items("winogrande"):
        assert list(item) == ["sentence", "option1", "option2", "answer"]
        assert item["sentence"].count("_") == 1
        first, second = PEOPLE[item["option1"]], PEOPLE[item["option2"]]
        fits = []
        for person in (first, second):
            meetings = [
                form.format(
                    first=first.name,
                    second=second.name,
                    name="_",
                    noun=person.facts[attribute].noun,
                )
                for attribute, form in MEETINGS.items()
            ]
            fits.append(item["sentence"] in meetings)
        assert fits == [item["answer"] == "1", item["answer"] == "2"]


@pytest.mark.parametrize(("task", "key"), [("hellaswag", "label"), ("arc", "answerKey")])
def test_no_place_among_the_choices_is_favoured(task: str, key: str) -> None:
    answers = [item[key] for item in items(task)]
    assert len(answers) == 200
    assert all(30 <= answers.count(answer) <= 70 for answer in set(answers))
