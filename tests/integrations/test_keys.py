import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from malformed import check_key
from uniformity_callbacks.integrations.keys import mlflow_key, mlflow_keys

MANY = settings(max_examples=2000, deadline=None)
PARTS = st.sampled_from(["uniformity", "heads[0]", "é", "..", ".", "", "a b", "w2", "-", "\n", "x:y", "\ud800", "..a"])
PATHS = st.lists(PARTS, max_size=5).map("/".join)
WORDS = st.text(alphabet="ab/._-[] €\x00", max_size=6)
KEYS = st.one_of(st.text(max_size=300), PATHS, WORDS)
PLAIN = st.one_of(st.sampled_from("abcXYZ019_-: "), st.characters(categories=["Lu", "Ll", "Lo", "Nd"]))
FORBIDDEN = st.sampled_from("[](){}<>€#?*'\"\\\n\t\0,;=+")


@MANY
@given(KEYS)
def test_mlflow_takes_every_name(key):
    check_key(key)


@MANY
@given(st.lists(st.text(PLAIN, min_size=1, max_size=9), min_size=1, max_size=5).map("/".join))
def test_what_mlflow_takes_is_left(key):
    assert mlflow_key(key) == key


@MANY
@given(st.lists(KEYS, unique=True, max_size=20))
def test_two_keys_have_two_names_the_same_in_any_company(keys):
    names = mlflow_keys(keys)
    assert len(set(names.values())) == len(keys)
    assert all(names[key] == mlflow_key(key) for key in keys)


@MANY
@given(st.text("ab/", min_size=1, max_size=5), FORBIDDEN, FORBIDDEN, st.text("ab/", max_size=5))
def test_keys_that_differ_in_what_is_replaced(before, one, other, after):
    assert (mlflow_key(before + one + after) == mlflow_key(before + other + after)) == (one == other)


@pytest.mark.parametrize("key", ["", ".", "..", "/a", "a/", "a//b", "a/../b", "./a", "..a/b", "a\n", "a" * 251, "/"])
def test_what_is_no_plain_path_is_changed(key):
    assert mlflow_key(key) != key


def test_long_keys_that_begin_alike():
    assert mlflow_key("a" * 300) != mlflow_key("a" * 301)
    assert len(mlflow_key("a" * 300)) == 250
