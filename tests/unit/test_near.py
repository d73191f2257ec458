import pytest

from kit.catalog.names import ImageRequest
from kit.cli import COMMANDS
from kit.cli.near import WORDS, suggestion
from kit.errors import NoSuchImageError
from kit.run.prepare import name_and_words


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["jupyter"], "kit run torch jupyter"),
        (["notebook"], "kit run torch notebook"),
        (["jupyter", "tf-cpu"], "kit run tf-cpu jupyter"),
        (["train.py", "--lr", "1"], "kit run torch train.py --lr 1"),
        (["python", "x.py"], "kit run torch python x.py"),
        (["conda", "install", "x"], "kit run NAME pip install PACKAGE"),
        (["pytorch"], "kit run pytorch jupyter"),
        (["torch-cu126", "train.py"], "kit run torch-cu126 train.py"),
        (["images"], "kit list"),
        (["lst"], "kit list"),
        (["RUN"], "kit run"),
        (["zzzzzz"], ""),
    ],
)
def test_what_was_meant(words, meant):
    assert suggestion(words, COMMANDS) == meant


def test_what_is_suggested_exists_and_is_nothing_that_exists():
    for word, meant in WORDS.items():
        assert word not in COMMANDS
        found = [part for part in meant.split()[1:] if not part.startswith("-") and not part.isupper()]
        assert not found or any(part in COMMANDS for part in found), meant


@pytest.mark.parametrize(
    ("name", "framework", "version"),
    [
        ("pytorch", "torch", ""),
        ("PyTorch2.6", "torch", "2.6"),
        ("TF", "tensorflow", ""),
        ("tensorflow-cpu", "tensorflow", ""),
    ],
)
def test_what_people_call_a_framework(name, framework, version):
    asked = ImageRequest.parse(name)
    assert asked is not None
    assert (asked.framework, asked.version) == (framework, version)


@pytest.mark.parametrize(
    ("name", "words", "hint"),
    [
        ("jupyter", (), "`kit run torch jupyter`"),
        ("jupyter", ("tf",), "`kit run tf jupyter`"),
        ("train.py", ("--lr", "1"), "`kit run torch train.py --lr 1`"),
    ],
)
def test_a_command_in_the_place_of_an_image_is_answered_with_the_right_order(name, words, hint):
    with pytest.raises(NoSuchImageError) as caught:
        name_and_words(name, words, "")
    assert hint in caught.value.hint


def test_a_word_that_is_neither_is_answered_with_the_nearest_image():
    with pytest.raises(NoSuchImageError, match="there is no image `torhc`"):
        name_and_words("torhc", (), "")
    assert name_and_words("torhc", (), "tf-cpu") == ("tf-cpu", ("torhc",))
