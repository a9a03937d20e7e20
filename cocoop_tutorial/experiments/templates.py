"""Twelve sensible prompts, written down before any of them was scored (chapters 1 and 2).

They are what somebody would write who knows that the pictures are icons, and who has seen neither
results nor the captions of pretraining. "{}" is the class name, "<subject>" the dataset's subject.
"""

BARE = "{}"
SENTENCES = (
    "a photo of a {}.",
    "an icon of a {}.",
    "a picture of a {}.",
    "a drawing of a {}.",
    "a symbol for {}.",
)
WITH_MEDIUM = ("an outline icon of a {}.", "a solid icon of a {}.", "an emoji of a {}.")
WITH_SUBJECT = (
    "a {}, a type of <subject>.",
    "an icon of a {}, a type of <subject>.",
    "<subject>: a {}.",
)
TEMPLATES = (BARE, *SENTENCES, *WITH_MEDIUM, *WITH_SUBJECT)

# How a prompt names each medium that an image may have.
OF_MEDIUM = {
    "outline": "an outline icon of a {}.",
    "solid": "a solid icon of a {}.",
    "duotone": "a duotone icon of a {}.",
    "flat colour": "a flat color icon of a {}.",
    "emoji": "an emoji of a {}.",
    "black emoji": "a black emoji of a {}.",
    "flat emoji": "a flat emoji of a {}.",
    "3-D": "a 3-D emoji of a {}.",
    "hand-drawn": "a hand-drawn icon of a {}.",
    "pixel art": "a pixel art icon of a {}.",
    "sticker": "a sticker of a {}.",
}

# What the classes of a dataset are, where its name is not the word: as in "a type of food".
SUBJECTS = {
    "arrows": "arrow",
    "devices": "device",
    "editing": "editing symbol",
    "files": "file symbol",
    "games": "game",
    "general": "object",
    "media": "media control",
    "money": "money symbol",
    "nature": "food or nature",
    "people": "people symbol",
    "places": "place",
    "tools": "tool",
}


def for_dataset(name: str) -> dict[str, str]:
    """The twelve templates with a dataset's subject in them.

    Args:
        name: Such as "icons_food".

    Returns:
        By template, as in `TEMPLATES`: the text with one "{}" that the dataset is scored with.
    """
    word = name.removeprefix("icons_")
    subject = SUBJECTS.get(word, word.replace("_", " "))
    return {template: template.replace("<subject>", subject) for template in TEMPLATES}
