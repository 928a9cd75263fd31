"""Steps on numbers, lists and texts that functions of the code domain are made of.

Descriptions and solutions share their placeholders: ``{v}`` is the value of a step and ``{w}`` a
second argument; ``{k}`` and ``{j}`` are constants, ``{k}`` the smaller; ``{i}`` is a count; ``{c}``
and ``{d}`` are letters. ``functions`` fills them in.
"""

from typing import Final, NamedTuple


class Step(NamedTuple):
    """One step of a function.

    names: possible names of a function that ends with this step; none is a builtin.
    opening: description of the step on an argument.
    sequel: description of the step on the result of the step before.
    solution: an expression, or an indented body.
    """

    names: str
    opening: str
    sequel: str
    solution: str


NUMBERS: Final = (
    Step("plus more", "Add {k} to {v}", "add {k}", "{v} + {k}"),
    Step("plus more", "Return {v} plus {k}", "return it plus {k}", "{v} + {k}"),
    Step("minus less", "Take {k} from {v}", "take {k} away", "{v} - {k}"),
    Step("minus less", "Return {v} minus {k}", "return it minus {k}", "{v} - {k}"),
    Step("times scale", "Return {v} times {k}", "return it times {k}", "{v} * {k}"),
    Step("rest left", "Return {v} modulo {k}", "return it modulo {k}", "{v} % {k}"),
    Step("floor lift", "Return {v}, but at least {k}", "return at least {k}", "max({v}, {k})"),
    Step("cap limit", "Return {v}, but at most {k}", "return at most {k}", "min({v}, {k})"),
    Step("over above", "Is {v} over {k}?", "tell if it is over {k}", "{v} > {k}"),
    Step("under below", "Is {v} under {k}?", "tell if it is under {k}", "{v} < {k}"),
    Step("plus both", "Add {v} and {w}", "add both", "{v} + {w}"),
    Step("minus less", "Take {w} from {v}", "take one from the other", "{v} - {w}"),
    Step("times area", "Return {v} times {w}", "return one times the other", "{v} * {w}"),
    Step("best top", "Return the larger of {v} and {w}", "return the larger", "max({v}, {w})"),
    Step("least low", "Return the smaller of {v} and {w}", "return the smaller", "min({v}, {w})"),
)
NUMBERS_TWICE: Final = (
    Step("scale mix", "Return {v} times {k}, plus {j}", "", "{v} * {k} + {j}"),
    Step("scale mix", "Return {v} times {k}, minus {j}", "", "{v} * {k} - {j}"),
    Step("scale mix", "Add {k} to {v}, then return it times {j}", "", "({v} + {k}) * {j}"),
    Step("blend mix", "Return {v} times {k}, plus {w}", "", "{v} * {k} + {w}"),
    Step("blend mix", "Add {v} and {w}, then return it times {k}", "", "({v} + {w}) * {k}"),
    Step("between inside", "Is {v} over {k} and under {j}?", "", "{k} < {v} < {j}"),
    Step("between inside", "Is {v} between {k} and {j}?", "", "{k} < {v} < {j}"),
    Step("fits even", "Is {v} a multiple of {i}?", "", "{v} % {i} == 0"),
    Step("near far", "Are {v} and {w} over {k} apart?", "", "abs({v} - {w}) > {k}"),
    Step(
        "pick choose",
        "Return {k} if {v} is over {j}, else {v}",
        "",
        "    if {v} > {j}:\n        return {k}\n    return {v}\n",
    ),
    Step(
        "pick choose",
        "Return {v} if it is over {k}, else {w}",
        "",
        "    if {v} > {k}:\n        return {v}\n    return {w}\n",
    ),
)

LISTS: Final = (
    Step(
        "over keep", "Keep all of {v} over {k}", "keep all over {k}", "[x for x in {v} if x > {k}]"
    ),
    Step(
        "under keep",
        "Keep all of {v} under {k}",
        "keep all under {k}",
        "[x for x in {v} if x < {k}]",
    ),
    Step("plus more", "Add {k} to each of {v}", "add {k} to each", "[x + {k} for x in {v}]"),
    Step("minus less", "Take {k} from each of {v}", "take {k} from each", "[x - {k} for x in {v}]"),
    Step(
        "times scale",
        "Return each of {v} times {k}",
        "return each times {k}",
        "[x * {k} for x in {v}]",
    ),
    Step("first head", "Keep the first {i} of {v}", "keep the first {i}", "{v}[:{i}]"),
    Step("last tail", "Keep the last {i} of {v}", "keep the last {i}", "{v}[-{i}:]"),
    Step("rest drop", "Drop the first {i} of {v}", "drop the first {i}", "{v}[{i}:]"),
    Step("order rank", "Sort {v}", "sort them", "sorted({v})"),
    Step("flip back", "Reverse {v}", "reverse them", "{v}[::-1]"),
)
LIST_ENDS: Final = (
    Step("total add", "Return the sum of {v}", "return the sum", "sum({v})"),
    Step("largest best", "Return the largest of {v}", "return the largest", "max({v})"),
    Step("smallest least", "Return the smallest of {v}", "return the smallest", "min({v})"),
    Step("count size", "Count the items of {v}", "count them", "len({v})"),
    Step("has holds", "Is {k} in {v}?", "tell if {k} is there", "{k} in {v}"),
    Step(
        "count often",
        "Count how often {k} is in {v}",
        "count how often {k} is there",
        "{v}.count({k})",
    ),
)

TEXTS: Final = (
    Step("flip back", "Reverse {v}", "reverse it", "{v}[::-1]"),
    Step(
        "first head", "Keep the first {i} letters of {v}", "keep the first {i} letters", "{v}[:{i}]"
    ),
    Step(
        "last tail", "Keep the last {i} letters of {v}", "keep the last {i} letters", "{v}[-{i}:]"
    ),
    Step(
        "rest drop", "Drop the first {i} letters of {v}", "drop the first {i} letters", "{v}[{i}:]"
    ),
    Step("without drop", 'Drop each "{c}" of {v}', 'drop each "{c}"', '{v}.replace("{c}", "")'),
    Step(
        "swap turn",
        'Turn each "{c}" of {v} into "{d}"',
        'turn each "{c}" into "{d}"',
        '{v}.replace("{c}", "{d}")',
    ),
)
TEXT_ENDS: Final = (
    Step("capitals loud", "Put {v} in capitals", "put it in capitals", "{v}.upper()"),
    Step("count often", 'Count each "{c}" of {v}', 'count each "{c}"', '{v}.count("{c}")'),
    Step("has holds", 'Is "{c}" in {v}?', 'tell if "{c}" is there', '"{c}" in {v}'),
    Step("size long", "Return the length of {v}", "return the length", "len({v})"),
    Step(
        "begins opens",
        'Does {v} begin with "{c}"?',
        'tell if it begins with "{c}"',
        '{v}.startswith("{c}")',
    ),
    Step("end more", 'Add "{c}" to {v}', 'add "{c}"', '{v} + "{c}"'),
    Step("repeat times", "Repeat {v} {i} times", "repeat it {i} times", "{v} * {i}"),
)
