"""Segments grow on GPUs, unless the user says otherwise or memory is shared by handles."""

import pytest

from learner.allocator import allocator_settings


def test_segments_grow_where_nobody_said_anything() -> None:
    assert allocator_settings({"PYTORCH_ALLOC_CONF": ""}, shares_memory=False) == {
        "PYTORCH_ALLOC_CONF": "expandable_segments:True"
    }


@pytest.mark.parametrize("name", ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"])
def test_what_the_user_set_stands(name: str) -> None:
    assert allocator_settings({name: "max_split_size_mb:128"}, shares_memory=False) == {}


def test_memory_that_is_opened_by_handles_has_plain_segments() -> None:
    assert allocator_settings({}, shares_memory=True) == {}
