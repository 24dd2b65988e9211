"""A worker of `train_step.py`: the same networks and step in PyTorch, as its users write them.

Channels last, autocast, TF32 for float32, fused AdamW, `torch.compile` of forward pass and loss.
The one lever names another way: "eager", or a mode of `torch.compile`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from flops import SIZES
from measuring import peak_resident, processor, serve, time_steps
from torch import nn
from torch.nn import functional as F

from emotion_jax.models.layers import scale_features
from emotion_jax.models.simplenet import BLOCKS
from emotion_jax.models.vgg import HIDDEN, STAGES


class SimpleNetV2(nn.Module):
    """Layer by layer as `emotion_jax.SimpleNetV2`."""

    def __init__(self, dropout: tuple[float, float] = (0.2, 0.3), width: float = 1.0):
        super().__init__()
        self.convs, self.norms, channels = nn.ModuleList(), nn.ModuleList(), 3
        for block in BLOCKS:
            padding = 1 if block.padding == "SAME" else 0
            features = scale_features(block.features, width)
            self.convs.append(nn.Conv2d(channels, features, 3, padding=padding))
            self.norms.append(nn.BatchNorm2d(features, eps=1e-3, momentum=0.05))
            channels = features
        self.head, self.dropout = nn.Linear(channels, 8), dropout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits `[B, 8]` of normalized images `[B, 3, H, W]`."""
        early, late = self.dropout
        rate = early
        for block, conv, norm in zip(BLOCKS, self.convs, self.norms, strict=True):
            x = norm(conv(x))
            if block.pool == "before relu":
                x = F.max_pool2d(x, 2)
            x = F.dropout(F.relu(x), rate, self.training)
            if block.pool == "after dropout":
                x, rate = F.max_pool2d(x, 2), late
        return self.head(F.dropout(x.amax((2, 3)), late, self.training))


class VGG16(nn.Module):
    """Layer by layer as `emotion_jax.VGG16`."""

    def __init__(
        self,
        size: int = 224,
        dropout: tuple[float, float] = (0.5, 0.5),
        width: float = 1.0,
    ):
        super().__init__()
        self.convs, channels = nn.ModuleList(), 3
        for count, features in STAGES:
            for _ in range(count):
                self.convs.append(
                    nn.Conv2d(channels, scale_features(features, width), 3, padding=1)
                )
                channels = scale_features(features, width)
        pixels, hidden = (size // 2 ** len(STAGES)) ** 2, scale_features(HIDDEN, width)
        sizes = zip((pixels * channels, hidden), (hidden, hidden), strict=True)
        self.hidden = nn.ModuleList(nn.Linear(*pair) for pair in sizes)
        self.head, self.dropout = nn.Linear(hidden, 8), dropout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits `[B, 8]` of normalized images `[B, 3, H, W]`."""
        convs = iter(self.convs)
        for count, _ in STAGES:
            for _ in range(count):
                x = F.relu(next(convs)(x))
            x = F.max_pool2d(x, 2)
        x = x.flatten(1)
        for layer, rate in zip(self.hidden, self.dropout, strict=True):
            x = F.dropout(F.relu(layer(x)), rate, self.training)
        return self.head(x)


def carry_weights(network: nn.Module, params: Any, batch_stats: Any) -> None:
    """Gives a network the variables of its twin, NumPy arrays by name, in place."""
    convs = [params[name] for name in sorted(params) if name.startswith("conv")]
    with torch.no_grad():
        for layer, ours in zip(network.convs, convs, strict=True):
            layer.weight.copy_(torch.tensor(ours["kernel"].transpose(3, 2, 0, 1)))
            layer.bias.copy_(torch.tensor(ours["bias"]))
        for i, layer in enumerate(getattr(network, "norms", ()), start=1):
            ours = params[f"bn{i:02}"] | batch_stats[f"bn{i:02}"]
            names = {
                "scale": "weight",
                "bias": "bias",
                "mean": "running_mean",
                "var": "running_var",
            }
            for name, theirs in names.items():
                getattr(layer, theirs).copy_(torch.tensor(ours[name]))
        dense = {f"fc{i}": layer for i, layer in enumerate(getattr(network, "hidden", ()), start=1)}
        for name, layer in {**dense, "head": network.head}.items():
            kernel = params[name]["kernel"]
            if name == "fc1":  # rows by (height, width, channel) there, channels first here
                channels = network.convs[-1].out_channels
                side = round((len(kernel) / channels) ** 0.5)
                shape = (side, side, channels, kernel.shape[1])
                kernel = kernel.reshape(shape).transpose(2, 0, 1, 3).reshape(kernel.shape)
            layer.weight.copy_(torch.tensor(kernel.T))
            layer.bias.copy_(torch.tensor(params[name]["bias"]))


def work(
    network: str,
    precision: str,
    batch: int,
    levers: list[str],
    seconds: float,
    width: float,
    **_: Any,
) -> dict[str, Any]:
    """Trains on one batch of noise; at most one lever."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    size = SIZES[network]
    model: nn.Module = (
        SimpleNetV2(width=width) if network == "simplenet" else VGG16(size, width=width)
    )
    model = model.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, weight_decay=1e-4, fused=True)
    rng = np.random.default_rng(0)
    images = torch.tensor(rng.integers(0, 256, (batch, size, size, 3), np.uint8)).to(device)
    labels = F.one_hot(torch.tensor(rng.integers(0, 8, batch)), 8).float().to(device)
    weight = torch.ones(batch, device=device)

    def objective(images: torch.Tensor) -> torch.Tensor:
        # Bytes lie channels last, and stay so.
        x = (images.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = model(x)
        losses = F.cross_entropy(logits.float(), labels, reduction="none")
        return (weight * losses).sum() / weight.sum()

    mode = levers[0] if levers else "default"
    if mode != "eager":
        objective = torch.compile(objective, mode=mode)

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = objective(images)
        loss.backward()
        optimizer.step()
        return loss

    def wait(loss: torch.Tensor) -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    found = time_steps(step, wait, seconds=seconds)
    cuda = device.type == "cuda"
    if cuda and mode in ("default", "eager"):
        # Not what cuDNN took to try its algorithms. The other modes replay what they recorded, in
        # memory that they took then.
        torch.cuda.reset_peak_memory_stats()
    return {
        **found,
        "loss": step().item(),
        "peak_memory": torch.cuda.max_memory_allocated() if cuda else peak_resident(),
        "device": torch.cuda.get_device_name() if cuda else processor(),
        "versions": {"torch": torch.__version__},
    }


if __name__ == "__main__":
    serve(work)
