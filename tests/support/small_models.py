"""Bases and adapters of a few thousand random parameters, as real folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    BloomForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def save_tokenizer(folder: Path) -> None:
    """A tokenizer that knows every byte and the tokens <s> and </s>."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={sign: i for i, sign in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    ).save_pretrained(folder)


def save_base(
    folder: Path,
    *,
    seed: int = 0,
    tied: bool = False,
    dtype: torch.dtype = torch.float32,
    max_shard_size: str = "5GB",
    bias: bool = False,
    hidden_size: int = 32,
) -> Path:
    """A Llama of two layers."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=260,
        hidden_size=hidden_size,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        attention_bias=bias,
        initializer_range=0.2,
        bos_token_id=256,
        eos_token_id=257,
    )
    model = LlamaForCausalLM(config).to(dtype)
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    save_tokenizer(folder)
    return folder


def save_gpt2(folder: Path) -> Path:
    """A GPT-2 of two layers, whose projections are stored transposed."""
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(vocab_size=260, n_embd=32, n_layer=2, n_head=4, n_positions=64)).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_adapter(folder: Path, base: Path, model: Any = None, **settings: Any) -> Path:
    """An adapter on `base`, or on `model`, whose every tensor is random, as PEFT saves it after training."""
    adapted(model or AutoModelForCausalLM.from_pretrained(base), **settings).save_pretrained(folder)
    return folder


WINDOW = 8  # tokens, far fewer than any sequence of the tests
SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.15,
    "tie_word_embeddings": False,
}
HALF_WINDOWED = {"head_dim": 8, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
FAMILIES = {
    "llama": (LlamaForCausalLM, LlamaConfig, {}),
    "llama-tied": (LlamaForCausalLM, LlamaConfig, {"tie_word_embeddings": True}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {}),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"head_dim": 8}),
    "qwen3-window": (
        Qwen3ForCausalLM,
        Qwen3Config,
        {**HALF_WINDOWED, "use_sliding_window": True, "sliding_window": WINDOW},
    ),
    "gemma3": (Gemma3ForCausalLM, Gemma3TextConfig, {**HALF_WINDOWED, "sliding_window": WINDOW}),
    "mistral": (MistralForCausalLM, MistralConfig, {"sliding_window": WINDOW}),
    "mixtral": (MixtralForCausalLM, MixtralConfig, {"num_local_experts": 4, "output_router_logits": True}),
}


# Families whose sizes have other names, or that take no trees.
GPT2 = {
    **{"vocab_size": 96, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 256, "initializer_range": 0.15},
    **{"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
}
NEOX = {**SIZES, "hidden_act": "gelu", "max_position_embeddings": 256}
GPT_NEO = {
    **{"vocab_size": 96, "hidden_size": 32, "num_layers": 3, "num_heads": 4, "initializer_range": 0.15},
    **{"attention_types": [[["global", "local", "global"], 1]], "window_size": WINDOW, "max_position_embeddings": 256},
}
BLOOM = {"vocab_size": 96, "hidden_size": 32, "n_layer": 3, "n_head": 4, "initializer_range": 0.15}
# Of OPT the embeddings are narrower than the layers, and projected.
OPT = {**SIZES, "ffn_dim": 48, "word_embed_proj_dim": 24, "init_std": 0.15, "dropout": 0.0}
GEMMA2 = {**SIZES, **HALF_WINDOWED, "query_pre_attn_scalar": 8, "sliding_window": WINDOW, "tie_word_embeddings": True}
OTHERS = {
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {**SIZES, "tie_word_embeddings": True}),
    "gemma3-tied": (Gemma3ForCausalLM, Gemma3TextConfig, {**SIZES, **HALF_WINDOWED, "tie_word_embeddings": True}),
    "gpt2": (GPT2LMHeadModel, GPT2Config, GPT2),
    "gpt-neox": (GPTNeoXForCausalLM, GPTNeoXConfig, NEOX),
    "gpt-neo": (GPTNeoForCausalLM, GPTNeoConfig, GPT_NEO),
    "bloom": (BloomForCausalLM, BloomConfig, BLOOM),
    "opt": (OPTForCausalLM, OPTConfig, OPT),
    "falcon": (FalconForCausalLM, FalconConfig, {**SIZES, "multi_query": True}),
    "phi": (PhiForCausalLM, PhiConfig, {**SIZES, "hidden_act": "gelu"}),
    "gemma2": (Gemma2ForCausalLM, Gemma2Config, GEMMA2),
}
WITHOUT_TREES = ("gpt-neo", "bloom")  # whose attention goes by the place in the row
# Their projections, embeddings and head, where these are not called as in a Llama.
FUSED = ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]
NAMES = {
    "mixtral": (PROJECTIONS[:4], "embed_tokens", "lm_head"),  # its experts are no linear layers
    "gpt2": (["c_attn", "c_proj", "c_fc"], "wte", "lm_head"),
    "gpt-neox": (FUSED, "embed_in", "lm_head"),
    "gpt-neo": (["q_proj", "k_proj", "v_proj", "out_proj", "c_fc", "c_proj"], "wte", "lm_head"),
    "bloom": (FUSED, "word_embeddings", "lm_head"),
    "opt": (["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"], "embed_tokens", "lm_head"),
    "falcon": (FUSED, "word_embeddings", "lm_head"),
    "phi": (["q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"], "embed_tokens", "lm_head"),
}


def make_family(family: str, **sizes: Any) -> Any:
    """A model of any family with random weights, biases and norms included."""
    if family in FAMILIES:
        model = make_model(family, **sizes)
    else:
        cls, config, settings = OTHERS[family]
        torch.manual_seed(0)
        model = cls(config(**{**settings, **sizes}))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def save_family(folder: Path, family: str, dtype: torch.dtype = torch.float32) -> Path:
    """The same as a folder, without a tokenizer."""
    make_family(family).to(dtype).save_pretrained(folder)
    return folder


def make_model(family: str, *, attention: str = "sdpa", seed: int = 0, **sizes: Any) -> Any:
    """A model of three layers with random weights."""
    cls, config, settings = FAMILIES[family]
    torch.manual_seed(seed)
    return cls(config(**{**SIZES, **settings, **sizes}, attn_implementation=attention))


def adapted(model: Any, *, seed: int = 7, **settings: Any) -> Any:
    """The model with an adapter whose every tensor is random, ready to be trained; a target that is not there fails."""
    asked = settings.get("target_modules", [])
    settings = {"r": 4, "lora_alpha": 8, "target_modules": PROJECTIONS, "task_type": "CAUSAL_LM", **settings}
    torch.manual_seed(seed)
    peft_model = get_peft_model(model, LoraConfig(**settings))
    found = {name.rpartition(".")[2] for name, layer in peft_model.named_modules() if isinstance(layer, BaseTunerLayer)}
    assert isinstance(asked, str) or found.issuperset(asked), f"no {set(asked) - found} to adapt"
    with torch.no_grad():
        for parameter in peft_model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return peft_model
