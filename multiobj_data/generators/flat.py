"""What the flat (2-D) generators share: counts, placing, overlap, background, hold-outs, painting."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Self

import numpy as np

from multiobj_data.composition.arrangement import Arrangement, Stage
from multiobj_data.composition.backgrounds import Background
from multiobj_data.composition.counts import Counts
from multiobj_data.composition.drawing import Blend
from multiobj_data.composition.overlap import Overlap, Rule
from multiobj_data.composition.placement import MIN_ACCEPTANCE, Rules, Source, estimate_acceptance
from multiobj_data.configuration import build, parse_assignments
from multiobj_data.errors import InfeasibleError, UsageError, did_you_mean, quoted
from multiobj_data.factors.laws import Condition
from multiobj_data.factors.regions import Region
from multiobj_data.randomness import BLOCK
from multiobj_data.scenes import Scenes

OOD = "ood"
"""The split of scenes that are out of distribution."""

LARGEST_CANVAS = 1024
"""Side in pixels."""

_SEEN = 4000  # objects, among which every value of a factor that has few comes out

_SAME_IN_OOD = ("amodal", "canvas", "holdout", "ood")  # what the splits of a data set must share


@dataclass(frozen=True)
class HeldOut:
    """The objects of a hold-out.

    Attributes:
        region: Their factors.
        describe: Turns what a law draws into the factors of the region.
    """

    region: Region
    describe: Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]

    @property
    def names(self) -> tuple[str, ...]:
        """Return no name: those of the region are derived from what is drawn."""
        return ()

    def contains(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return which objects are held out, bool ``[N]``."""
        return self.region.contains(self.describe(values))


@dataclass(frozen=True)
class FlatGenerator(ABC):
    """Scenes of sprites on a canvas.

    Args:
        counts: Objects a scene: ``"2,4"`` (equal shares, exact), ``"0-2"``, weights ``"1:3,2:1"``.
        canvas: Side of the scene in pixels.
        overlap: Whether objects may overlap freely.
        overlap_rule: The contract where they may not: pixels, boxes, rows-and-columns or legacy; see
            `multiobj_data.composition.overlap`.
        max_iou: For boxes: largest intersection over union of two tight boxes.
        margin: For boxes: least distance in pixels.
        background: plain, noise or grid, with constants if wanted; see `Background`.
        distinct: Factors, comma-separated, in which no two objects of a scene are equal, e.g. ``"colour"``.
        holdout: Objects that train, val and test never show, e.g. ``"shape=heart & colour=red"``; see
            `Region`. Each scene of the split ``ood`` holds at least one of them, and is drawn from the full law
            otherwise.
        ood: Settings that differ in the split ``ood``, e.g. ``"counts=4-6; scale=1.2"``.
        amodal: Whether to keep each object's own pixels beside the label map; none: where objects may overlap.
    """

    counts: str = "0-2"
    canvas: int = 50
    overlap: bool = True
    overlap_rule: Rule = "pixels"
    max_iou: float = 0.0
    margin: int = 0
    background: str = "plain"
    distinct: str = ""
    holdout: str = ""
    ood: str = ""
    amodal: bool | None = None

    id: ClassVar[str]
    noun: ClassVar[str]  # how messages call the objects
    smaller: ClassVar[str] = "a smaller --scale"  # how messages advise smaller ones
    per_machine: ClassVar[tuple[str, ...]] = ()  # further settings that the splits must share

    # -- what each generator says of its own

    @abstractmethod
    def _source(self, part: str, without: Condition | None) -> Source:
        """Return where the objects of a split come from, those of a hold-out left out."""

    @abstractmethod
    def _ground(
        self, rng: np.random.Generator, factors: Mapping[str, np.ndarray], n: int
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Draw the colour behind the objects, uint8 ``[n, C]``, and what is stored of it."""

    @property
    @abstractmethod
    def channels(self) -> int:
        """1 for grey pictures, 3 for coloured ones."""

    @property
    @abstractmethod
    def vocabulary(self) -> Mapping[str, Mapping[str, int] | None]:
        """The factors by which a hold-out may speak of objects, with their words; see `Region.parse`."""

    @property
    @abstractmethod
    def distinguishable(self) -> tuple[str, ...]:
        """The factors in which objects can be asked to differ."""

    @staticmethod
    def describe(values: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Turn what the law draws into the factors of the vocabulary."""
        return values

    @property
    @abstractmethod
    def largest_side(self) -> int:
        """Upper bound on the side of an object's patch, in pixels."""

    blend: ClassVar[Blend] = "over"

    @property
    def tone(self) -> np.ndarray | None:
        """Grey level painted -> grey level stored, uint8 ``[256]``; ``None`` keeps them."""
        return None

    # -- validation

    def __post_init__(self) -> None:
        counts = Counts(self.counts)
        if not 1 <= self.canvas <= LARGEST_CANVAS:
            raise UsageError(f"canvas: expected 1 to {LARGEST_CANVAS} pixels, got {self.canvas}.")
        Background(self.background).check(self.canvas)
        if counts.largest and self.largest_side > self.canvas:
            raise UsageError(
                f"canvas {self.canvas} is too small: {self.noun} of these sizes need {self.largest_side} pixels. "
                f"Use --canvas {self.largest_side} or more, or {self.smaller}."
            )
        self._refuse_beyond_memory(counts.largest)
        if not self.overlap:
            self._contract  # noqa: B018  # validate now
        if self.margin >= self.canvas:
            raise UsageError(
                f"margin: expected fewer pixels than the canvas' {self.canvas}, got {self.margin}."
            )
        self._check_distinct()
        self._held_out  # noqa: B018
        if self.ood:
            self._check_ood()

    def _refuse_beyond_memory(self, largest: int) -> None:
        """Scenes are drawn 256 at a time: refuse what would take many gigabytes."""
        size = BLOCK * largest * self.canvas**2
        if self.keeps_amodal and size > 4 << 30:
            raise UsageError(
                f"a mask for each of {largest} objects would take {size / 1e9:.0f} GB for {BLOCK} "
                "scenes; use fewer objects, a smaller --canvas, or --set amodal=false."
            )

    def _check_distinct(self) -> None:
        for name in self._distinct:
            if name not in self.distinguishable:
                raise UsageError(
                    f"distinct: expected some of {', '.join(self.distinguishable)}, got {quoted(name)}."
                    f"{did_you_mean(name, self.distinguishable)}"
                )

    def _check_ood(self) -> None:
        settings = self._ood_settings
        for name in (*_SAME_IN_OOD, *self.per_machine):
            if name in settings:
                raise UsageError(f"ood: {name} is the same for all splits of a data set; leave it out.")
        shifted = self.in_split(OOD)
        if shifted.channels != self.channels:
            raise UsageError(
                f"ood: {quoted(self.ood)} gives pictures of {shifted.channels} channel(s), the other splits have "
                f"{self.channels}; use colours of the same kind."
            )

    # -- settings, read

    @property
    def _contract(self) -> Overlap | None:
        return None if self.overlap else Overlap(self.overlap_rule, self.max_iou, self.margin)

    @property
    def _distinct(self) -> tuple[str, ...]:
        return tuple(name.strip() for name in self.distinct.split(",") if name.strip())

    @property
    def _held_out(self) -> HeldOut | None:
        if not self.holdout:
            return None
        return HeldOut(Region.parse(self.holdout, self.vocabulary), self.describe)

    @property
    def _ood_settings(self) -> dict[str, str]:
        return parse_assignments((part for part in self.ood.split(";") if part.strip()), "--ood-set")

    @property
    def has_ood(self) -> bool:
        """Whether the split ``ood`` differs from the others."""
        return bool(self.ood or self.holdout)

    @property
    def slots(self) -> int:
        """K, the same for all splits."""
        return max(Counts(self.in_split(split).counts).largest for split in ("train", OOD))

    @property
    def keeps_amodal(self) -> bool:
        """Whether each object's own pixels are kept."""
        if self.amodal is not None:
            return self.amodal
        return any(self.in_split(split)._may_hide for split in ("train", OOD))

    @property
    def _may_hide(self) -> bool:
        free = self.overlap or self.overlap_rule in ("legacy", "boxes")
        return Counts(self.counts).largest > 1 and free

    def in_split(self, split: str) -> Self:
        """Return the settings that hold in a split."""
        if split != OOD or not self.ood:
            return self
        mine = {field.name: getattr(self, field.name) for field in fields(self)}
        return build(type(self), {**mine, **self._ood_settings, "ood": ""})

    # -- what to know of them

    def notes(self) -> list[str]:
        """Return what whoever uses the data must know."""
        splits = [self, self.in_split(OOD)] if self.ood else [self]
        return list(dict.fromkeys(note for here in splits for note in here._hidden()))

    def _hidden(self) -> list[str]:
        """Say what cannot be seen though it was asked for."""
        return Background(self.background).notes(self._ground_brightness())

    def _ground_brightness(self) -> np.ndarray:
        """Return the brightest channel of some grounds, uint8 ``[m]``."""
        return np.zeros(1, np.uint8) if self.tone is None else self.tone[:1]

    # -- the scenes

    def scenes(self, rng: np.random.Generator, n: int, *, split: str = "train", first: int = 0) -> Scenes:
        """Draw ``n`` scenes."""
        return self.arrange(rng, n, split=split, first=first).paint()

    def arrange(
        self, rng: np.random.Generator, n: int, *, split: str = "train", first: int = 0
    ) -> Arrangement:
        """Decide what is in ``n`` scenes; painting them is left."""
        here = self.in_split(split)
        stage = here._stage(split, self.slots)
        count, layers, factors, attempts = stage.set(rng, n, first)
        ground, scene_factors = here._ground(rng, factors, n)
        backdrop = Background(here.background).draw(rng, n, self.canvas, self.channels)
        more = {} if backdrop is None else backdrop.factors
        return Arrangement(
            count=count,
            layers=layers,
            factors=factors,
            scene_factors={"attempts": attempts, **scene_factors, **more},
            ground=ground,
            canvas=self.canvas,
            blend=self.blend,
            amodal=self.keeps_amodal,
            tone=here.tone,
            backdrop=backdrop,
        )

    def _stage(self, split: str, slots: int) -> Stage:
        region = self._held_out
        counts = Counts(self.counts)
        rules = Rules(self._contract, self._distinct)
        if split == OOD and region is not None:
            if not counts.largest:
                raise UsageError(
                    f"counts: a scene of the split {OOD} must hold an object of the hold-out, got "
                    f"{quoted(self.counts)}; ask for 1 or more there, e.g. --ood-set counts=1."
                )
            return Stage(counts.without(0), slots, self._source(split, None), replace(rules, include=region))
        return Stage(counts, slots, self._source(split, region), rules)

    # -- what can be asked for

    def acceptance(self, rng: np.random.Generator) -> dict[int, float]:
        """Estimate per count which share of candidate scenes the rules accept.

        Raises:
            InfeasibleError: If one is below `MIN_ACCEPTANCE`; the message says what would do.
        """
        shares = self._shares(rng, "train")
        self.ood_acceptance(rng)
        return shares

    def ood_acceptance(self, rng: np.random.Generator) -> dict[int, float]:
        """Estimate the same for the split ``ood``; empty where that is no different.

        Raises:
            InfeasibleError: As `acceptance`.
        """
        return self.in_split(OOD)._shares(rng, OOD) if self.has_ood else {}

    def _shares(self, rng: np.random.Generator, split: str) -> dict[int, float]:
        stage = self._stage(split, 0)
        shares = {}
        for count in stage.counts.weights:
            shares[count] = estimate_acceptance(rng, stage.source, count, stage.rules)
            if shares[count] < MIN_ACCEPTANCE:
                raise InfeasibleError(self._infeasible(rng, stage, count, shares[count]))
        return shares

    def _infeasible(self, rng: np.random.Generator, stage: Stage, count: int, share: float) -> str:
        without = replace(stage.rules, include=None)
        if stage.rules.include and estimate_acceptance(rng, stage.source, count, without) > MIN_ACCEPTANCE:
            return (
                f"holdout {quoted(self.holdout)}: none of the {self.noun} drawn is of these, so that the split {OOD} "
                "would be empty; hold out something that the settings can show."
            )
        if few := self._too_few_values(rng, stage, count):
            return few
        rate = f"about {share:.0e} of random scenes" if share else "none of the random scenes tried"
        if self._contract is None:
            return (
                f"{count} {self.noun} distinct in {self.distinct}: {rate} would be accepted; ask for fewer "
                f"{self.noun}, more values, or less that is distinct."
            )
        distinct = f"distinct in {self.distinct} and " if self._distinct else ""
        larger = self._canvas_for(rng, count)
        fewer = 1
        while fewer + 1 < count and self._estimate(rng, fewer + 1) >= 1e-3:
            fewer += 1
        advice = [
            f"at most {fewer} {self.noun}",
            f"--canvas {larger} or more" if larger else "",
            self.smaller,
            "less that is distinct" if distinct else "",
        ]
        where = f"in {self.canvas}x{self.canvas}"
        return (
            f"{count} {self.noun} {distinct}without overlap (rule {self.overlap_rule!r}) {where}: {rate} "
            f"would be accepted, fewer than 1 in {1 / MIN_ACCEPTANCE:,.0f}. Use "
            f"{', '.join(filter(None, advice))}, or --overlap."
        )

    def _too_few_values(self, rng: np.random.Generator, stage: Stage, count: int) -> str:
        """Say which factor has fewer values than objects are to differ in it, or nothing."""
        drawn = stage.source.propose(rng, _SEEN)
        for name in self._distinct:
            few = len(np.unique(drawn.values(name).reshape(_SEEN, -1), axis=0))
            if few < count:
                return (
                    f"{count} {self.noun} distinct in {name}: it has only {few} value{'s' * (few > 1)} here; "
                    f"ask for at most {few} {self.noun}, more values, or less that is distinct."
                )
        return ""

    def _canvas_for(self, rng: np.random.Generator, count: int) -> int:
        """Return a canvas on which so many objects find a place, at most four times as wide as this one; or 0."""
        larger = int(self.canvas * 1.15) + 1
        while larger <= min(4 * self.canvas, LARGEST_CANVAS):
            if replace(self, canvas=larger, amodal=False)._estimate(rng, count) >= 1e-3:
                return larger
            larger = int(larger * 1.15) + 1
        return 0

    def _estimate(self, rng: np.random.Generator, count: int) -> float:
        stage = self._stage("train", 0)
        return estimate_acceptance(rng, stage.source, count, stage.rules)
