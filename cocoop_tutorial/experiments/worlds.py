"""The two worlds that an experiment can run in: icons on a laptop, the paper's data on a GPU."""

from dataclasses import dataclass, replace

from cocoop_tutorial.datasets import icons
from cocoop_tutorial.datasets.imagenet import SHIFTS
from cocoop_tutorial.datasets.paper import NAMES
from cocoop_tutorial.errors import check_known
from cocoop_tutorial.experiments.methods import method
from cocoop_tutorial.training.config import TrainConfig

SOURCE_EPOCHS = 50  # of CoOp on ImageNet in the released scripts, instead of 200


@dataclass(frozen=True)
class World:
    """A backbone and its data sets.

    Attributes:
        name: "embedded" or "paper".
        backbone: As for `load_clip`.
        datasets: The eleven, in the order of the tables.
        source: What cross-dataset transfer and domain generalization train on.
        shifts: Shifted test sets of the source's classes.
        settings: Data sets for choosing settings; none in the paper's world.
        transform: How training sees an image. Icons are not cropped and flipped at random: a
            flipped "left arrow" is another class.
    """

    name: str
    backbone: str
    datasets: tuple[str, ...]
    source: str
    shifts: tuple[str, ...]
    settings: tuple[str, ...]
    transform: str

    @property
    def targets(self) -> tuple[str, ...]:
        """What a prompt learned on the source is tested on: the source, the others, the shifts."""
        others = (name for name in self.datasets if name != self.source)
        return (self.source, *others, *self.shifts)

    def config(self, name: str, dataset: str, seed: int) -> TrainConfig | None:
        """The paper's settings of a method on a data set; None if it does not train."""
        config = method(name).config
        if config is None:
            return None
        if dataset == self.source:
            config = replace(config, epochs=min(config.epochs, SOURCE_EPOCHS))
        return replace(config, transform=self.transform, seed=seed)


EMBEDDED = World(
    "embedded", "icon-clip", icons.MAIN, icons.SOURCE, tuple(icons.SHIFTS), icons.SETTINGS, "test"
)
PAPER = World("paper", "ViT-B-16/openai", NAMES[:11], "imagenet", tuple(SHIFTS), (), "train")
WORLDS = {world.name: world for world in (EMBEDDED, PAPER)}


def world(name: str) -> World:
    """A world by its name.

    Raises:
        UnknownNameError: There is none.
    """
    return WORLDS[check_known("world", name, WORLDS)]
