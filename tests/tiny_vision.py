"""Detectors, a segmenter and a depth network of transformers' real classes at a tiny size, as folders on disk."""

import json
from pathlib import Path

import torch

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] . ? a photo of the cup dog red left".split()


def grounding_dino(folder: Path) -> Path:
    """A Grounding DINO with random weights, its tokenizer and its image processor."""
    from transformers import (
        BertTokenizerFast,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessorPil,
        GroundingDinoProcessor,
        SwinConfig,
    )

    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer = BertTokenizerFast(vocab_file=str(folder / "vocab.txt"))
    swin = SwinConfig(
        image_size=64, embed_dim=8, depths=[1, 1], num_heads=[1, 1], window_size=2, out_features=["stage2"]
    )
    config = GroundingDinoConfig(
        backbone_config=swin,
        text_config={
            "model_type": "bert", "vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 64,
        },
        num_queries=5, encoder_layers=1, decoder_layers=2, encoder_ffn_dim=16, decoder_ffn_dim=16, d_model=32,
        encoder_attention_heads=2, decoder_attention_heads=2, num_feature_levels=2, max_text_len=16,
        disable_custom_kernels=True,
    )  # fmt: skip
    torch.manual_seed(0)
    GroundingDinoForObjectDetection(config).eval().save_pretrained(folder)
    pictures = GroundingDinoImageProcessorPil(size={"shortest_edge": 48, "longest_edge": 64})
    GroundingDinoProcessor(pictures, tokenizer).save_pretrained(folder)
    return folder


def owlv2(folder: Path) -> Path:
    """An OWLv2 with random weights, its tokenizer and its image processor."""
    from transformers import CLIPTokenizer, Owlv2Config, Owlv2ForObjectDetection, Owlv2ImageProcessorPil, Owlv2Processor

    folder.mkdir()
    letters = [chr(code) for code in range(97, 123)]
    tokens = ["!", "<|startoftext|>", "<|endoftext|>", *letters, *(f"{one}</w>" for one in letters)]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=32)
    side = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Owlv2Config(
        text_config={
            **side, "vocab_size": len(tokens), "max_position_embeddings": 32, "bos_token_id": 1, "eos_token_id": 2,
        },
        vision_config={**side, "image_size": 64, "patch_size": 16},
        projection_dim=16,
    )  # fmt: skip
    torch.manual_seed(0)
    Owlv2ForObjectDetection(config).eval().save_pretrained(folder)
    pictures = Owlv2ImageProcessorPil(size={"height": 64, "width": 64})
    Owlv2Processor(pictures, tokenizer).save_pretrained(folder)
    return folder


def sam2(folder: Path) -> Path:
    """A SAM 2 with random weights."""
    from transformers import Sam2Config, Sam2HieraDetConfig, Sam2Model, Sam2VisionConfig

    hiera = Sam2HieraDetConfig(
        hidden_size=8, num_attention_heads=1, image_size=[64, 64], blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64], num_attention_heads_per_stage=[1, 1, 1, 1], global_attention_blocks=[3],
        window_size_per_stage=[8, 4, 4, 4], window_positional_embedding_background_size=[4, 4],
    )  # fmt: skip
    vision = Sam2VisionConfig(
        backbone_config=hiera, backbone_channel_list=[64, 32, 16, 8], fpn_hidden_size=16,
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
    )  # fmt: skip
    config = Sam2Config(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 16, "image_size": 64},
        mask_decoder_config={"hidden_size": 16, "mlp_dim": 16, "num_attention_heads": 2, "iou_head_hidden_dim": 16},
    )
    torch.manual_seed(0)
    Sam2Model(config).eval().save_pretrained(folder)
    return folder


def depth_anything(folder: Path) -> Path:
    """A Depth Anything with random weights and its image processor."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessorPil

    backbone = Dinov2Config(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16, image_size=56, patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"], reshape_hidden_states=False,
    )  # fmt: skip
    config = DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=16, neck_hidden_sizes=[4, 8, 16, 16], fusion_hidden_size=8,
        head_hidden_size=4, patch_size=14,
    )  # fmt: skip
    torch.manual_seed(0)
    DepthAnythingForDepthEstimation(config).eval().save_pretrained(folder)
    DPTImageProcessorPil(size={"height": 56, "width": 56}, do_resize=True, ensure_multiple_of=14).save_pretrained(
        folder
    )
    return folder
