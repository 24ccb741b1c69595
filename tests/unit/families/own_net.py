"""A network such as a user brings, for the laws of the family; deliberately without a word of this project in it."""

from torch import Tensor, nn


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.norm(self.conv(x))).relu()


class Net(nn.Module):
    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), Block(8))
        self.pool, self.drop, self.head = nn.AdaptiveAvgPool2d(4), nn.Dropout(0.1), nn.Linear(128, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.pool(self.features(x)).flatten(1)))


def build(num_classes: int, image_shape: tuple[int, int, int]) -> Net:
    return Net(image_shape[0], num_classes)
