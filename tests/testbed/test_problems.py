"""A worked answer is right: arithmetic and story are computed again without the generator."""

import itertools
import operator
import random
import re

from lorasweep.testbed.problems import exercise, problems, remark

EQUATION = re.compile(r"(\d+) ([-+*]) (\d+) = (\d+)")
OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul}
SOME = list(itertools.islice(problems("some"), 2000))


def holds(equation: str) -> bool:
    match = EQUATION.fullmatch(equation)
    assert match is not None, equation
    left, sign, right, result = match.groups()
    return bool(OPERATIONS[sign](int(left), int(right)) == int(result))


def solve(question: str) -> int:
    """Solve a story sentence by sentence, independently of the generator."""
    asked = re.search(r"does (\w+) have now\?$", question)
    assert asked is not None, question
    name = asked.group(1)
    total = 0
    for sentence in re.split(r"(?<=\.) ", question)[:-1]:
        numbers = [int(number) for number in re.findall(r"\d+", sentence)]
        if " fills " in sentence:
            total = numbers[0] * numbers[1]
        elif " twice as many" in sentence:
            total = 2 * numbers[0]
        elif sentence.startswith(f"{name} has "):
            total = numbers[0]
        elif " brings " in sentence or " finds " in sentence:
            total += numbers[0]
        else:
            assert re.match(rf"{name} (loses|gives) ", sentence), sentence
            total -= numbers[0]
    return total


def test_every_line_of_an_answer_holds_and_the_last_says_the_result() -> None:
    for problem in SOME:
        chain, last = problem.answer.splitlines()
        steps = chain.split(", ")
        assert 1 <= len(steps) <= 3
        assert all(map(holds, steps))
        assert last == f"#### {steps[-1].split(' = ')[1]}"


def test_the_answer_is_the_answer_to_the_question() -> None:
    for problem in SOME:
        assert int(problem.answer.split("#### ")[1]) == solve(problem.question), problem


def test_numbers_stay_small() -> None:
    for problem in SOME:
        assert all(0 < int(number) < 40 for number in re.findall(r"\d+", problem.answer))


def test_no_question_comes_twice() -> None:
    assert len({problem.question for problem in SOME}) == len(SOME)


def test_sums_told_in_passing_hold_and_never_use_the_answer_format() -> None:
    rng = random.Random("passing")
    for _ in range(1000):
        sentence = remark(rng)
        (equation,) = EQUATION.finditer(sentence)
        assert holds(equation.group())
        assert "####" not in sentence
        assert "Answer" not in sentence


def test_exercises_hold_and_give_no_target_problem_away() -> None:
    rng = random.Random("exercises")
    some = [exercise(rng) for _ in range(2000)]
    for text in some:
        question, answer = text.split("\nAnswer: ")
        assert question.endswith(" is that?")
        (equation,) = EQUATION.finditer(answer)
        assert holds(equation.group())
        assert re.findall(r"\d+", answer)[-1] == equation.group(4)
    assert 150 < sum("\n#### " in text for text in some) < 350
    assert all(problem.question.endswith(" have now?") for problem in SOME)
