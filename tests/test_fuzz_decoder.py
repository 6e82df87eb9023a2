"""The decoder against a few hundred damaged files; `python -m benchmarks.fuzz_decoder` goes on for minutes."""

import pytest

from benchmarks.fuzz_decoder import CORPUS, fuzz, mended, outcome


@pytest.mark.parametrize("name", CORPUS)
def test_what_is_damaged_was_whole_before(name: str) -> None:
    expected = "animated: it is not known which of its pictures is meant" if "animated" in name else "a picture"
    assert outcome(CORPUS[name]) == outcome(mended(CORPUS[name])) == expected


def test_a_damaged_file_is_a_picture_or_has_a_reason() -> None:
    tally = fuzz(examples=500, number=0)
    assert tally.faults == []
    assert tally.outcomes.total() == 500
    assert tally.outcomes["a picture"] < 250
    assert tally.outcomes.keys() >= {"a picture", "truncated", "damaged", "not a whole header"}
