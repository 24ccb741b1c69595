"""LPIPS, where its package and the weights of its trunk are present: nothing is ever downloaded."""

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import interpolate

from cem.metrics.base import AnyImages, MetricError, comparable
from cem.storage.files import sha256
from cem.types import PerImage

VGG16_SHA256 = "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0"  # torchvision's vgg16-397923af.pth
HEADS_SHA256 = "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868"  # weights/v0.1/vgg.pth of lpips
MIN_SIDE = 64  # smaller images are enlarged to it: VGG halves the side four times
CHANNELS = (1, 3)
_IMAGES_AT_ONCE = 64
Metric = Callable[[AnyImages, AnyImages], PerImage]


def load_lpips(trunk: str | Path, trunk_sha256: str = VGG16_SHA256, device: torch.device | str = "cpu") -> Metric:
    """LPIPS v0.1 with VGG-16: a function of reconstructions and images in [0, 1] that gives one number for each image.

    Images of a side below 64 are enlarged to 64×64 (bilinear), grey ones repeated to three channels.
    trunk: VGG-16's ImageNet weights in torchvision's names, a .pth file or .safetensors. trunk_sha256: its SHA-256,
    checked before the file is read. The linear heads are those that the package `lpips` brings, checked as well.

    Raises MetricError when the package or the file is absent, or when a hash or the file's content is not as expected.

    Source: Zhang, Isola, Efros, Shechtman & Wang 2018.
    """
    try:
        import lpips
    except ImportError as error:
        raise MetricError("LPIPS needs the package lpips: pip install lpips, or leave it out.") from error
    heads = Path(lpips.__file__).parent / "weights/v0.1/vgg.pth"
    weights = _trunk(_checked(Path(trunk), trunk_sha256)) | _weights(_checked(heads, HEADS_SHA256))
    # On "meta", torchvision does not draw the 138 million numbers of a VGG that is thrown away.
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.filterwarnings("ignore", message=".*(pretrained|weight enum)", category=UserWarning)
        net = lpips.LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False)
    layer = lpips.ScalingLayer()
    weights |= {f"scaling_layer.{name}": tensor for name, tensor in layer.state_dict().items()}
    # The package holds its heads twice, as lin0 and as lins.0; they are the same modules.
    weights |= {f"lins.{name[3:]}": tensor for name, tensor in weights.items() if name.startswith("lin")}
    try:
        net.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise MetricError(f"{trunk}: expected the weights of VGG-16 in torchvision's names. {error}") from error
    return _metric(net.to(device).eval().requires_grad_(False), torch.device(device))


def _metric(net: nn.Module, device: torch.device) -> Metric:
    @torch.no_grad()
    def lpips(reconstruction: AnyImages, target: AnyImages) -> PerImage:
        pair = comparable(reconstruction, target)
        if target.shape[1] not in CHANNELS:
            raise MetricError(f"LPIPS expects grey or RGB images; found {target.shape[1]} channels.")
        parts = zip(*(torch.split(images, _IMAGES_AT_ONCE) for images in pair), strict=True)
        return torch.cat([net(*(_prepare(images, device) for images in part)).flatten() for part in parts])

    return lpips


def _prepare(images: Tensor, device: torch.device) -> Tensor:
    """RGB of at least 64×64 pixels, in [−1, 1], as the package expects it."""
    images = images.to(device, torch.float32)
    if min(images.shape[2:]) < MIN_SIDE:
        images = interpolate(images, size=(MIN_SIDE, MIN_SIDE), mode="bilinear", align_corners=False)
    return images.expand(-1, 3, -1, -1) * 2 - 1


def _checked(path: Path, expected: str) -> Path:
    if not path.is_file():
        raise MetricError(
            f"{path}: no such file. LPIPS needs torchvision's vgg16-397923af.pth there; it is not downloaded."
        )
    found = sha256(path)
    if found != expected.lower():
        raise MetricError(f"{path}: expected SHA-256 {expected}, found {found}. Use the file that the hash belongs to.")
    return path


def _weights(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return load_file(path)
    loaded: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return loaded


def _trunk(path: Path) -> dict[str, Tensor]:
    """VGG-16's convolutions in the package's names, which cut them into five slices before each max-pooling."""
    ends = (4, 9, 16, 23, 30)
    found = {}
    for name, tensor in _weights(path).items():
        part, _, rest = name.partition(".")
        if part == "features":
            layer = int(rest.split(".")[0])
            number = 1 + sum(layer >= end for end in ends)
            found[f"net.slice{number}.{rest}"] = tensor
    return found
