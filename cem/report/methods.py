"""Methods: which runs are one method at several strengths, and which runs may be held against each other."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cem.config import NoSurrogate, Run
from cem.config.base import digest
from cem.config.bottleneck import parse_bottleneck
from cem.config.paths import dotted

PLAIN = "plain noise"
# As rows of results tell it; the last two: whether all seeds have one network, which is given; accuracy of the
# undefended network of the same seed, of the arena.
METHOD_COLUMNS = (
    "arena", "arena_id", "method_id", "method", "strength_name", "strength", "own_network", "one_network",
    "reference_accuracy",
)  # fmt: skip
_DIGITS = 8
Settings = dict[str, Any]
Strength = tuple[str, str]  # whose it is, and its name


@dataclass(frozen=True)
class Method:
    """What a run is an instance of.

    id: equal for runs that differ in seed and strength alone. arena: equal for runs that are held against each other;
    setting: what tells it from the others of the study in words, empty where it is the only one.
    by: name of the strength, empty where there is none; strength: how much of it the run has, 0 without.
    inside: whether the run has the network and training of its arena; otherwise the label says how it differs.
    """

    label: str
    id: str
    arena: str
    setting: str
    by: str
    strength: float
    inside: bool

    @property
    def plain(self) -> bool:
        """Whether it is the noise, or nothing, that the methods of its arena are held against."""
        return self.label == PLAIN


@dataclass(frozen=True)
class _Parts:
    """A run without its seed, by what decides where it belongs. rest: its settings without its strengths."""

    run: Run
    place: Settings  # data, network and training
    arena: Settings
    rest: Settings
    strengths: dict[Strength, float]


def is_plain(run: Run) -> bool:
    """Whether nothing but noise, or nothing at all, tells a run from the undefended one."""
    return not run.defenses and run.surrogate == NoSurrogate()


def methods_of(runs: Iterable[Run], added: Iterable[Run] = ()) -> dict[str, Method]:
    """Run id → its method. added: undefended references that the study does not ask for.

    An arena has one data set, network and training, and plain noise of at least two σ. Runs of another network or
    training are held against the arena of their data set that differs least: accuracy and error are of the same images
    and attackers, whatever the network. Where there is none, they are an arena of their own.
    """
    asked = list(runs)
    every = list({run.id: run for run in (*asked, *added)}.values())
    places = {run.id: place(run) for run in every}
    arenas = _arenas(asked, places)
    found = [_parts(run, here, arenas[_key(here)]) for run, here in zip(every, places.values(), strict=True)]
    skeletons: dict[str, list[_Parts]] = {}
    for one in found:
        skeletons.setdefault(_key(one.rest), []).append(one)
    families = [pair for members in skeletons.values() for pair in _families(members)]
    return _labelled(families)


def place(run: Run) -> Settings:
    """Data, network and training: what runs share whose network is not another one."""
    parts = {"dataset": run.dataset, "model": run.model, "training": run.training}
    return {name: part.model_dump(mode="json") for name, part in parts.items()}


def _key(settings: Settings) -> str:
    return digest(settings, _DIGITS)


def _arenas(asked: list[Run], of_run: dict[str, Settings]) -> dict[str, Settings]:
    """Key of each place → the place whose plain noise its runs are held against."""
    places = {_key(found): found for found in of_run.values()}
    noises: dict[str, set[float]] = {name: set() for name in places}
    for run in filter(is_plain, asked):
        noises[_key(of_run[run.id])].add(run.noise_std)
    curves = [name for name in places if len(noises[name]) > 1]

    def arena(name: str) -> Settings:
        own = places[name]
        others = [places[other] for other in curves if places[other]["dataset"] == own["dataset"]]
        return own if name in curves else min(others, key=lambda other: len(_differing(own, other)), default=own)

    return {name: arena(name) for name in places}


def _parts(run: Run, here: Settings, arena: Settings) -> _Parts:
    """Strengths: of another network without a defence, what passes its cut; else λ, those of the defences, and σ."""
    rest = here | {"noise_std": run.noise_std}
    if is_plain(run):
        if here == arena:
            return _Parts(run, here, arena, here, {("", "σ"): run.noise_std})
        return _Parts(run, here, arena, *_without_bottleneck(rest))
    strengths: dict[Strength, float] = {}
    rest["surrogate"] = run.surrogate.model_dump(mode="json", exclude={"weight"})
    if run.surrogate.adds_term:
        strengths["", "λ"] = run.surrogate.weight
    rest["defenses"] = {}
    for defense in run.defenses:
        rest["defenses"][defense.member] = defense.model_dump(mode="json", exclude={defense.strength})
        if defense.strength:
            strengths[defense.member, defense.strength] = float(getattr(defense, defense.strength))
    del rest["noise_std"]
    return _Parts(run, here, arena, rest, strengths | {("", "σ"): run.noise_std})


def _without_bottleneck(rest: Settings) -> tuple[Settings, dict[Strength, float]]:
    """Settings without how much passes the bottleneck, and that: channels over the squared stride."""
    model = rest.get("model", {})
    if not model.get("bottleneck"):
        return rest, {}
    found = parse_bottleneck(model["bottleneck"])
    kind = {"kernel": found.kernel, "stride": found.stride, "relu": found.relu}
    return rest | {"model": model | {"bottleneck": kind}}, {("", "channels"): found.channels / found.stride**2}


def _families(members: list[_Parts]) -> list[tuple[_Parts, Settings, Strength | None]]:
    """Of runs that differ in strengths alone: each with what its curve shares, and the strength along which that goes.

    It is the strength of the most values in the study; where others vary as well, there is a curve for each of theirs.
    """
    names = list(members[0].strengths)
    by = max(names, key=lambda name: len({one.strengths[name] for one in members}), default=None)  # the first of equals
    found = []
    for one in members:
        fixed = {" ".join(filter(None, name)): value for name, value in one.strengths.items() if name != by}
        found.append((one, one.rest | {"fixed": fixed}, by))
    return found


def _labelled(found: list[tuple[_Parts, Settings, Strength | None]]) -> dict[str, Method]:
    families: dict[str, dict[str, Settings]] = {}  # short label and arena → the families that it could be
    for one, family, _ in found:
        families.setdefault(_short(one) + _key(one.arena), {})[_key(family)] = family
    arenas = list({_key(one.arena): one.arena for one, _, _ in found}.values())
    methods = {}
    for one, family, by in found:
        setting = {name: value for other in arenas for name, value in _differing(one.arena, other).items()}
        twins = families[_short(one) + _key(one.arena)]
        apart = {name: value for twin in twins.values() for name, value in _differing(family, twin).items()}
        methods[one.run.id] = Method(
            label=", ".join([_short(one), *_told(apart)]),
            id=_key(family),
            arena=_key(one.arena),
            setting=", ".join(_told(setting)),
            by="" if by is None else by[1],
            strength=0.0 if by is None else one.strengths[by],
            inside=one.place == one.arena,
        )
    return methods


def _short(one: _Parts) -> str:
    """The surrogate and the defences, and in what network and training are others than the arena's."""
    surrogate = f"{one.run.surrogate.member} {one.run.surrogate.formula}".strip() if one.run.surrogate.adds_term else ""
    kinds = [surrogate, *(defense.member for defense in one.run.defenses)]
    alone = PLAIN if one.place == one.arena else f"noise of σ {one.run.noise_std:g}"
    words = [" + ".join(filter(None, kinds)) or alone]
    for name, what in (("model", "another network"), ("training", "another training")):
        mine, theirs = ({name: settings.get(name, {})} for settings in (one.place, one.arena))
        other = _differing(mine, theirs)
        told = [
            key.removeprefix(f"{name}.")
            + ("" if (key == "model.bottleneck" and ("", "channels") in one.strengths) else f" {_text(value)}")
            for key, value in other.items()
        ]
        words += [f"{what} ({', '.join(told)})"] if told else []
    return ", ".join(words)


def _differing(settings: Settings, other: Settings) -> Settings:
    """What it has otherwise than another, by its dotted name."""
    mine, theirs = dotted(settings), dotted(other)
    return {name: value for name, value in mine.items() if value != theirs.get(name)}


def _told(settings: Settings) -> list[str]:
    """In words, by the last part of each name."""
    return [f"{name.rpartition('.')[2]} {_text(value)}" for name, value in settings.items()]


def _text(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
