"""What our own tests use, offered for yours: a tiny real model that costs nothing to load.

    from langchain_uno.testing import make_tiny_model
    path = make_tiny_model(tmp_path / "tiny")      # a random Qwen3, 0.1 M parameters, saved to disk

It goes through the same loading, training and serving as ``Qwen/Qwen3-8B``; its words are noise.
"""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Any


def make_tiny_model(path: str | os.PathLike[str], *, seed: int = 0, hidden: int = 64) -> Path:
    """Save a random Qwen3 with a byte-level tokenizer and a chat template; return its folder.

    Args:
        path: folder to write (created).
        seed: of the random weights; another seed is another base model (another fingerprint).
        hidden: width; a multiple of 32.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer_class: Any = PreTrainedTokenizerFast
    tokenizer = tokenizer_class(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
    )
    tokenizer.add_tokens(["<tool_call>", "</tool_call>"])
    template = resources.files("langchain_uno") / "models" / "chat_template.jinja"
    tokenizer.chat_template = template.read_text(encoding="utf-8")
    tokenizer.save_pretrained(folder)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        num_hidden_layers=2,
        num_attention_heads=hidden // 32,
        num_key_value_heads=1,
        head_dim=32,
        intermediate_size=2 * hidden,
        tie_word_embeddings=True,
        max_position_embeddings=4096,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        Qwen3ForCausalLM(config).save_pretrained(folder, safe_serialization=True)
    return folder


def make_tiny_adapter(
    path: str | os.PathLike[str], model: str | os.PathLike[str], *, seed: int = 0, rank: int = 4
) -> Path:
    """Save a random LoRA adapter for a model folder, as a trainer would; return its folder.

    Args:
        path: folder to write (created).
        model: folder of the base model.
        seed: of the random weights, which are large enough to change every answer.
        rank: of the LoRA matrices (all linear layers).
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        config = LoraConfig(
            r=rank,
            lora_alpha=4 * rank,
            target_modules="all-linear",
            init_lora_weights=False,
            task_type="CAUSAL_LM",
        )
        get_peft_model(base, config).save_pretrained(str(path), safe_serialization=True)
    return Path(path)
