"""Rows of a text by each model's rules, against the encoder asked by hand; tokenizers in their published form."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import T5EncoderModel, UMT5EncoderModel

from sgi2v import load_backbone
from sgi2v.backbones.registry import outline_of
from sgi2v.backbones.text import Texts
from tiny_dit import tiny_dit, tokenizer

TEXT = "a red ball rolls"


@pytest.mark.parametrize(("name", "length"), [("a14b", 512), ("ltx", 128), ("cogvideox", 226)])
def test_rows_are_the_encoders(name: str, length: int) -> None:
    outline: Any = outline_of(tiny_dit(name))
    tokens = tokenizer(length)([TEXT], padding="max_length", max_length=length, return_tensors="pt")
    count = int(tokens["attention_mask"].sum())
    encoder: Any = (UMT5EncoderModel if name == "a14b" else T5EncoderModel).from_pretrained(
        tiny_dit(name) / "text_encoder"
    )
    mask = tokens["attention_mask"] if name == "a14b" else None
    with torch.no_grad():
        whole = encoder(tokens["input_ids"], mask).last_hidden_state[0]
    for _ in range(2):  # encoded, then kept
        (rows,) = Texts(outline.folder, outline.TEXT, torch.float32).rows([TEXT])
        assert torch.equal(rows[:count], whole[:count])
        assert len(rows) == (count if name == "ltx" else length)
        if name == "a14b":
            assert not rows[count:].any()
        else:
            assert torch.equal(rows[count:], whole[count : len(rows)])


def test_a_filling_left_off_is_a_filling_hidden() -> None:
    """LTX-Video's network gives the same with 128 rows and their mask as with the text's rows alone."""
    backbone: Any = load_backbone(tiny_dit("ltx"), device="cpu", dtype="float32")
    rows = torch.randn(1, 128, 32)
    mask = torch.arange(128)[None] < 9
    given = {
        "hidden_states": torch.randn(1, 18, 8), "timestep": torch.full((1, 18), 900.0), "num_frames": 3, "height": 2,
        "width": 3, "return_dict": False,
    }  # fmt: skip
    with torch.no_grad():
        (hidden,) = backbone.denoiser(encoder_hidden_states=rows, encoder_attention_mask=mask, **given)
        (off,) = backbone.denoiser(encoder_hidden_states=rows[:, :9], encoder_attention_mask=None, **given)
    assert (hidden - off).abs().max() < 1e-5


def test_a_tokenizer_of_sentencepiece_is_read(tmp_path: Path) -> None:
    """CogVideoX's folder holds spiece.model and no tokenizer.json."""
    pieces = pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")
    folder = Path(shutil.copytree(tiny_dit("cogvideox"), tmp_path / "model"))
    (tmp_path / "words.txt").write_text("a red ball rolls\nthe camera moves slowly up\n" * 50, encoding="utf-8")
    shutil.rmtree(folder / "tokenizer")
    (folder / "tokenizer").mkdir()
    pieces.SentencePieceTrainer.train(
        input=str(tmp_path / "words.txt"), model_prefix=str(folder / "tokenizer" / "spiece"), vocab_size=40,
        hard_vocab_limit=False, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    said = {"tokenizer_class": "T5Tokenizer", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(said), encoding="utf-8")
    outline: Any = outline_of(folder)
    (rows,) = Texts(folder, outline.TEXT, torch.float32).rows([TEXT])
    assert rows.shape == (226, 32)
