"""Votes of raters as counts per class."""

from jaxser.data.votes import count_votes, has_votes, voted_classes
from jaxser.types import Utterance

CLASS_OF = {"anger": "anger", "happiness": "joy", "excitement": "joy", "no agreement": "no agreement"}


def rated(*votes: str) -> Utterance:
    return Utterance("x", "x.wav", "anger", votes=votes)


def test_votes_are_counted_by_class():
    counts = count_votes(
        [rated("anger", "excitement", "happiness"), rated("ANGER", "boredom"), rated()], CLASS_OF
    )
    assert counts.tolist() == [[1, 2, 0], [1, 0, 0], [0, 0, 0]]


def test_the_words_of_raters_are_votes_for_labels():
    assert count_votes([rated("Angry", "Happy")], CLASS_OF).tolist() == [[1, 1, 0]]
    assert count_votes([rated("Angry")], {"angry": "a", "anger": "b"}).tolist() == [[1, 0]]


def test_utterances_and_classes_without_votes():
    assert has_votes(rated("anger"), CLASS_OF)
    assert not has_votes(rated("boredom"), CLASS_OF)
    assert voted_classes([rated("anger", "excitement")], CLASS_OF) == {
        label: name for label, name in CLASS_OF.items() if name != "no agreement"
    }
