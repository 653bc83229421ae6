"""Handing the base model in memory to a trainer, and taking it back as it was."""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def borrowed(model: Any, tokenizer: Any) -> Iterator[None]:
    """Hand the base model to a trainer and take it back exactly as it was, whatever happens.

    TRL and PEFT write on the model they train: LoRA layers in place of the linear ones, a wrapper
    around ``forward``, pad tokens in the configs, tags, ``requires_grad``, hooks and flags for
    gradient checkpointing. All of it is undone here, also after an exception or Ctrl-C, so that one
    base model in memory serves and trains any number of adapters: every module gets its attributes
    and registries back. Weights are never copied, since frozen weights don't change. The process's
    random states are put back too.
    """
    modules = [  # registries: _modules, _parameters, _forward_hooks, ...
        (
            module,
            dict(module.__dict__),
            {k: dict(v) for k, v in module.__dict__.items() if isinstance(v, dict)},
        )
        for module in model.modules()
    ]
    configs = [
        (config, copy.deepcopy(config.__dict__))
        for config in (getattr(model, "config", None), getattr(model, "generation_config", None))
        if config is not None
    ]
    trainable = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    device = next(model.parameters()).device
    pad = tokenizer.pad_token
    states = (random.getstate(), np.random.get_state(), torch.get_rng_state())
    try:
        with warnings.catch_warnings():
            # what transformers, PEFT and TRL say to each other about names of their next versions
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        tokenizer.pad_token = pad
        for module, attributes, registries in modules:
            module.__dict__.clear()
            module.__dict__.update(attributes)
            for key, content in registries.items():
                attributes[key].clear()
                attributes[key].update(content)
        for config, values in configs:
            config.__dict__.clear()
            config.__dict__.update(values)
        for parameter, flag in trainable:
            parameter.requires_grad_(flag)
            parameter.grad = None
        if not hasattr(model, "hf_device_map") and next(model.parameters()).device != device:
            model.to(device)
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
