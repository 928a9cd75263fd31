import inspect
import pickle

import pytest

from lorasweep import errors
from lorasweep.errors import JournalError, LorasweepError, ResourceError, SpecError, UsageError

CLASSES = [
    thing
    for _, thing in inspect.getmembers(errors, inspect.isclass)
    if issubclass(thing, LorasweepError)
]


def make(kind: type[LorasweepError]) -> LorasweepError:
    sentence = "model.path: must be a folder, got 'å'"
    return SpecError([sentence, "name: must be given"]) if kind is SpecError else kind(sentence)


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_survives_pickling_with_its_content(kind):
    error = make(kind)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert again.args == error.args
    assert vars(again) == vars(error)


@pytest.mark.parametrize("kind", CLASSES)
def test_what_the_user_can_fix_exits_with_2_and_the_rest_with_1(kind):
    assert make(kind).exit_code == (2 if issubclass(kind, UsageError) else 1)


def test_a_spec_error_prints_each_problem_on_its_own_line():
    error = SpecError(["name: must be given", "space: must be given"])
    assert str(error).splitlines() == list(error.problems)


def test_errors_are_also_of_the_standard_kind_that_callers_expect():
    assert issubclass(SpecError, ValueError)
    assert issubclass(ResourceError, RuntimeError)
    assert issubclass(JournalError, RuntimeError)
