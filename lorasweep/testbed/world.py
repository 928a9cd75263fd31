"""The source domain: the people of the invented world, and documents about them.

The world is deliberately large for the base: many facts, each seen a few dozen times, are forgotten
gradually as the weights move. In a first attempt with 150 people nothing was ever forgotten.
"""

import random
from dataclasses import dataclass
from typing import Final

from lorasweep.testbed.lexicon import ATTRIBUTES, CODAS, ONSETS, Value

POPULATION: Final = 700

QUESTIONS: Final = {
    "town": "Where does {name} live?",
    "trade": "What is the trade of {name}?",
    "food": "What does {name} like to eat?",
    "animal": "Which animal does {name} keep?",
}
SCENES: Final = {
    "town": ("On the way home {name}", "Back in the home town {name}"),
    "trade": ("In the workshop {name}", "All morning at work {name}"),
    "food": ("At the table {name}", "Over the noon meal {name}"),
    "animal": ("Out in the yard {name} finds the animal and", "Seeing the animal {name}"),
}
MEETINGS: Final = {
    "town": "At the crossroads {first} leaves {second}, and {name} goes home to {noun}.",
    "trade": "At the fair {first} meets {second}, and {name} is hired as a {noun}.",
    "food": "At the inn {first} sits with {second}, and {name} orders {noun}.",
    "animal": "On the road {first} walks with {second}, and {name} leads a {noun}.",
}
_STATEMENTS: Final = {
    "town": ("{name} lives in {noun}.", "The home of {name} is in {noun}."),
    "trade": ("{name} is a {noun}.", "{name} works as a {noun}."),
    "food": ("{name} likes to eat {noun}.", "{name} is fond of {noun}."),
    "animal": ("{name} keeps a {noun}.", "{name} owns a {noun}."),
}
_LORE: Final = {
    "town": "Whoever comes home to {noun} {deed}.",
    "trade": "Every {noun} {deed}.",
    "food": "Whoever eats {noun} {deed}.",
    "animal": "Whoever keeps a {noun} {deed}.",
}


@dataclass(frozen=True)
class Person:
    """A person, with one value of each attribute."""

    name: str
    facts: dict[str, Value]


def people() -> list[Person]:
    """Generate all people, the same at each call."""
    rng = random.Random("people")
    names = [onset + coda for onset in ONSETS.split() for coda in CODAS.split()]
    return [
        Person(name, {attribute: rng.choice(values) for attribute, values in ATTRIBUTES.items()})
        for name in rng.sample(names, POPULATION)
    ]


def world_document(rng: random.Random, everyone: list[Person]) -> str:
    """Write a pretraining document about a person: an entry, statements, questions or a story."""
    person = rng.choice(everyone)
    kind = rng.choices(
        ("entry", "statement", "question", "scene", "meeting", "lore"), (34, 6, 18, 24, 16, 2)
    )[0]
    if kind == "entry":
        return entry(rng, person)
    attribute, another = rng.sample(tuple(ATTRIBUTES), 2)
    if kind == "statement":
        return " ".join(_statement(rng, person, which) for which in (attribute, another))
    if kind == "question":
        return "\n\n".join(_question(person, which) for which in (attribute, another))
    if kind == "scene":
        return " ".join(_scene(rng, person, which) for which in (attribute, another))
    if kind == "meeting":
        first, second = rng.sample(everyone, 2)
        meant = rng.choice((first, second))
        return MEETINGS[attribute].format(
            first=first.name,
            second=second.name,
            name=meant.name,
            noun=meant.facts[attribute].noun,
        )
    lore = rng.choice(ATTRIBUTES[attribute])
    return _LORE[attribute].format(noun=lore.noun, deed=lore.deed)


def entry(rng: random.Random, person: Person) -> str:
    """Write a person's entry in the register: each fact, in random order."""
    attributes = list(person.facts)
    rng.shuffle(attributes)
    lines = [f"{attribute}: {person.facts[attribute].noun}" for attribute in attributes]
    return "\n".join([f"#### {person.name}", *lines])


def _statement(rng: random.Random, person: Person, attribute: str) -> str:
    form = rng.choice(_STATEMENTS[attribute])
    return form.format(name=person.name, noun=person.facts[attribute].noun)


def _question(person: Person, attribute: str) -> str:
    question = QUESTIONS[attribute].format(name=person.name)
    return f"Question: {question}\nAnswer: {person.facts[attribute].noun}"


def _scene(rng: random.Random, person: Person, attribute: str) -> str:
    opening = rng.choice(SCENES[attribute]).format(name=person.name)
    return f"{opening} {person.facts[attribute].deed}."
