from __future__ import annotations

from types import SimpleNamespace

import pytest

from lorasweep.evaluate.writing import end_tokens


@pytest.mark.parametrize(
    ("of_model", "of_tokenizer", "ends"),
    [
        ([7, 8], 9, {7, 8, 9}),
        ([7, 9], 9, {7, 9}),
        (7, 9, {7, 9}),
        (None, 9, {9}),
        (None, None, set()),
    ],
)
def test_a_model_may_have_several_end_tokens(
    of_model: list[int] | int | None, of_tokenizer: int | None, ends: set[int]
):
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=of_model))
    assert end_tokens(model, SimpleNamespace(eos_token_id=of_tokenizer)) == ends
    assert end_tokens(SimpleNamespace(), SimpleNamespace(eos_token_id=9)) == {9}
