from hypothesis import given, settings
from hypothesis import strategies as st

from lorasweep.data.cpt import pack_documents
from lorasweep.data.example import Example

EOS = 1
documents = st.lists(
    st.text(st.characters(codec="ascii", exclude_characters="<"), min_size=1, max_size=30),
    min_size=1,
    max_size=6,
)


@settings(deadline=None)
@given(documents, st.integers(8, 24))
def test_packing_neither_loses_nor_invents_tokens_and_separates_by_eos(plain, texts, seq_len):
    tokens = pack_documents([Example.document(text) for text in texts], plain, seq_len)
    stream = [token for text in texts for token in [*plain(text)["input_ids"], EOS]]
    assert tokens.ids_S.tolist() == stream
    assert stream.count(EOS) == len(texts)
    assert plain.decode(tokens.ids_S).split("</s>") == [*texts, ""]


@settings(deadline=None)
@given(documents, st.integers(8, 24))
def test_every_sequence_is_full_but_the_last_and_none_predicts_nothing(plain, texts, seq_len):
    tokens = pack_documents([Example.document(text) for text in texts], plain, seq_len)
    lengths = [len(tokens.example(i)[0]) for i in range(len(tokens))]
    assert all(length == seq_len for length in lengths[:-2])
    assert all(2 <= length <= seq_len for length in lengths)
    assert sum(lengths[-2:]) > min(seq_len, sum(lengths) - 1)
    assert tokens.loss_S.all()
    assert tokens.loss_tokens_N.tolist() == [length - 1 for length in lengths]


def test_a_lone_last_token_takes_the_one_before_it_along(plain):
    tokens = pack_documents([Example.document("a" * 16)], plain, 8)  # 16 tokens and EOS
    assert [len(tokens.example(i)[0]) for i in range(len(tokens))] == [8, 7, 2]
    assert tokens.example(2)[0].tolist()[-1] == EOS


def test_a_special_token_of_the_tokenizer_is_not_put_before_documents(framing):
    tokens = pack_documents([Example.document("ab"), Example.document("c")], framing, 8)
    assert framing.decode(tokens.ids_S) == "ab</s>c</s>"


def test_no_document_gives_no_sequence(plain):
    assert len(pack_documents([], plain, 8)) == 0
