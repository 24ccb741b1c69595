"""Commands about what there is to choose from: networks, data, and a study to begin with."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cem.cli.app import FILE, RESULTS, AsJson, Results, say, say_json
from cem.planning.template import TEMPLATES, Template, write_study
from cem.planning.text import aligned
from cem.planning.workflow import run_command


def models(
    arch: Annotated[str, typer.Argument(metavar="[ARCH]", help="vgg11, torchvision:resnet18, …; absent: all")] = "",
    side: Annotated[int, typer.Option(min=1, help="images are side × side pixels")] = 32,
    channels: Annotated[int, typer.Option(min=1, help="1: grey; 3: colour")] = 3,
    width: Annotated[float, typer.Option(help="setting `width`")] = 1.0,
    bottleneck: Annotated[str, typer.Option(help="setting `bottleneck`; none: without one")] = "noRELU_C8S1",
    as_json: AsJson = False,
) -> None:
    """Show, for every cut of an architecture, the shape of z and what the client holds and computes.

    MACs: multiplications with addition for one image, of convolutions and matrix products.
    """
    from cem.models.catalogue import catalogue  # torch: other commands do without

    settings = {"width": width, "bottleneck": None if bottleneck == "none" else bottleneck}
    rows = catalogue(arch, settings, (channels, side, side))
    if as_json:
        say_json([asdict(row) for row in rows])
        return
    typer.echo(aligned([("arch", "cut", "z", "client parameters", "client MACs"), *(row.words() for row in rows)]))


def data(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="a source or a data set; absent: all")] = None,
    results: Results = RESULTS,
    studies: Annotated[Path, typer.Option(help="folder of the studies that may use prepared data")] = FILE.parent,
    as_json: AsJson = False,
) -> None:
    """Show the sources of images, the known data sets, and those that are prepared; of a known one, how to get it.

    Prepared: shape of an image, classes, images of each split, SHA-256 of the raw images, studies that use it. Paths
    are below the working directory, with each set's usual `root`. Exit code 2: there is none of that name.
    """
    from cem.data import catalog  # NumPy and h5py: other commands do without
    from cem.planning.leftover import study_files
    from cem.planning.prepared import prepared_sets, rows

    if name is not None:
        one = catalog.find(name)
        if as_json:
            say_json(one.as_json())
        else:
            typer.echo(one.text())
        return
    groups = {"sources": catalog.sources(), "sets": list(catalog.SETS)}
    prepared, unread = prepared_sets(results, study_files([studies]))
    if as_json:
        listed = {group: [one.as_json() for one in known] for group, known in groups.items()}
        say_json(listed | {"prepared": [one.as_json() for one in prepared], "unread": unread})
        return
    typer.echo(aligned([("source", "what", ""), *((*row[:2], "") for row in catalog.rows(groups["sources"]))]))
    say("\n" + aligned([("set", "what", "found here"), *catalog.rows(groups["sets"])]))
    if prepared:
        typer.echo("\n" + aligned(rows(prepared)))
    for text in unread if prepared else []:
        typer.echo(f"not read, so which data it uses is not known: {text}", err=True)


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="of the study, of its file and of its results")],
    template: Annotated[Template, typer.Option(help="; ".join(f"{key}: {one}" for key, one in TEMPLATES.items()))],
    images: Annotated[str, typer.Option(help="your images: a folder with a folder for each class, or an .npz")] = "",
    network: Annotated[str, typer.Option(help="of the template model: the Python file of your network")] = "",
    cut: Annotated[str, typer.Option(help="of the template model: the module whose output the client sends")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="a first look: one seed, attacks of few epochs")] = False,
    to: Annotated[Path, typer.Option(help="folder of the file")] = FILE.parent,
) -> None:
    """Write a study to begin with, config/NAME.yaml, with comments that say what to change. Replaces no file."""
    path = write_study(to, name, template, images=images, network=network, cut=cut, quick=quick)
    typer.echo(f"{path}: written. Read it, then:\n  cem validate {path}\n  {run_command(path)}")
