"""A model of a run is opened once: its config and its tokenizer are read one time each."""

import pytest
from transformers import AutoConfig, AutoTokenizer

from gainlens.models.loading import load
from gainlens.models.opening import open_model


def test_an_opened_model_is_not_read_again(make_checkpoint, monkeypatch):
    opened = open_model(make_checkpoint())
    assert opened.config.hidden_size == 32
    tokenizer = opened.tokenizer

    def refuse(*args, **kwargs):
        raise AssertionError("read again")

    monkeypatch.setattr(AutoConfig, "from_pretrained", refuse)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", refuse)
    loaded = load(opened, backend="native")
    assert loaded.tokenizer is tokenizer
    assert loaded.checkpoint.hf_name == opened.source


def test_a_missing_directory_is_refused_when_it_is_opened():
    with pytest.raises(ValueError, match="no directory"):
        open_model("./nowhere")
