"""What each icon shows, in words: its concept, medium, subjects and synonyms (chapter 2).

Houses agree on what to call a thing and disagree on how to spell its style: "house-fill",
"home-2-24-filled", "bxs-home". Here the style is taken off the name and becomes the medium; what
remains is the concept, in lower case with blanks. The rules are careful rather than complete:
"traffic-light" keeps its light, because no "traffic" is drawn without it.
"""

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from functools import lru_cache

from cocoop_tutorial.datasets.icons import houses, sources

# Style words and the medium that each tells; None where the base medium stays.
STYLES: dict[str, str | None] = {
    **dict.fromkeys("outline outlined line linear o thin light regular broken".split(), "outline"),
    **dict.fromkeys("fill filled solid f bxs".split(), "solid"),
    **dict.fromkeys("duotone twotone duo remix".split(), "duotone"),
    **dict.fromkeys("bold sharp rounded two alt small expressive".split(), None),
    "flat": "flat colour",
}
PREFIXES = {"ion": {"ios", "md"}, "bx": {"bxs"}}  # besides those that packages declare
# Always style, in whatever package: no thing is called so.
PLAIN = {"outline", "outlined", "filled", "duotone", "twotone"}
BOLD_IS_SOLID = {"solar", "streamline-ultimate"}  # elsewhere bold is a thick outline
NUMBER_WORDS = {"one", "two", "three", "four", "five", "six"}  # IconPark counts its variants so
MONO_DEFAULT = {"outline", "solid", "duotone"}  # only these packages tell the medium by suffix
BRANDS = frozenset(
    """500px adobe airbnb airtable alipay amazon amex android angular asana aws azure behance
    bing bitbucket blogger bluesky centos codepen codesandbox css3 debian deezer deviantart
    digg discord disqus docker dribbble dropbox drupal etsy evernote facebook fedora figma
    firebase firefox flickr foursquare framer github gitlab gmail google googleplus html5
    huawei ibm instagram intercom javascript jira joomla kakao laravel lastfm linkedin linux
    magento mastercard mastodon microsoft netflix nodejs npm openai patreon paypal picasa
    pinterest playstation python quora rdio reddit samsung sass shopify skype
    slack snapchat soundcloud spotify squarespace stackoverflow stripe stumbleupon suse
    svelte tailwind telegram tiktok trello tumblr twitch twitter typescript uber ubuntu
    unsplash viber vimeo visa vk vue wechat weibo whatsapp wikipedia wordpress xbox
    xing yahoo yandex yelp youtube""".split()
)  # words that are also things, such as "apple", are not here
SPELLING = {
    "colour": "color", "centre": "center", "aeroplane": "airplane", "favourite": "favorite",
    "organisation": "organization", "moustache": "mustache", "tyre": "tire",
}  # fmt: skip
DULL = frozenset(
    "general other others misc ui brand brands logo logos social symbol base operate".split()
) | {"extras openmoji", "extras unicode", "social media"}  # categories that say nothing
SKIN = re.compile(r"skin tone|(light|medium|dark)$|^flag |regional indicator")


@dataclass(frozen=True)
class Drawing:
    """One icon of one package, with words for it.

    Attributes:
        package: Name under `@iconify-json/`.
        icon: The icon's name in the package.
        house: Who drew it.
        concept: What it shows: the name, without style, in lower case with blanks.
        medium: How it is drawn, such as "outline", "solid", "flat colour", "emoji", "pixel art".
        subjects: What it belongs to: the package's own categories, or Unicode's groups.
        synonyms: Other names of it: the package's aliases, or the keywords of the emoji.
    """

    package: str
    icon: str
    house: str
    concept: str
    medium: str
    subjects: tuple[str, ...] = ()
    synonyms: tuple[str, ...] = ()


@lru_cache(maxsize=256)
def style_words(package: str) -> frozenset[str]:
    """Words that a package puts at the end of a name for a style.

    Those are the ones it declares, those that always mean a style, and those that end many of
    its names while the name without them is there as well.
    """
    declared = {w for s in sources.metadata(package).get("suffixes", {}) for w in s.split("-")}
    names = sources.icons(package)["icons"].keys()
    cut = (name.rpartition("-") for name in names)
    counted = Counter(last for base, _, last in cut if last in STYLES and base in names)
    often = {word for word, n in counted.items() if n >= max(4, 0.02 * len(names))}
    return frozenset((declared & STYLES.keys()) | PLAIN | often)


def split_style(package: str, icon: str) -> tuple[list[str], str]:
    """The words of an icon's name without style words, and the medium that they tell."""
    medium = houses.by_package()[package].packages[package]
    words, told, styles = icon.split("-"), None, style_words(package)
    prefixes = sources.metadata(package).get("prefixes", {}).keys() | PREFIXES.get(package, set())
    if words[0] in prefixes and len(words) > 1:
        told = STYLES.get(words.pop(0))
    while len(words) > 1 and (words[-1] in styles or re.fullmatch(r"\d+(px)?", words[-1])):
        if words[-2] in ("number", "digit", "numeric", "key", "letter"):
            break
        word = words.pop()
        solid = word == "bold" and package in BOLD_IS_SOLID
        told = told or ("solid" if solid else STYLES.get(word))
    if package.startswith("icon-park") and len(words) > 1 and words[-1] in NUMBER_WORDS:
        words.pop()
    return words, told if told and medium in MONO_DEFAULT else medium


def spell(words: list[str]) -> str:
    """The words of a name as one concept: one spelling, one order."""
    words = [SPELLING.get(word, word) for word in words]
    if len(words) > 1 and words[0] in ("circle", "square"):  # "circle-user" is "user-circle"
        words = [*words[1:], words[0]]
    if len(words) > 1 and words[-1] == "slash" and words[0] not in ("code", "forward"):
        words[-1] = "off"  # the bar across a picture
    return " ".join(words)


def _is_brand(words: list[str]) -> bool:
    named = words[0] in ("brand", "logo", "social") or words[-1] == "logo"
    return named or not BRANDS.isdisjoint(words)


def is_worth_a_name(concept: str) -> bool:
    """Whether a name says something: words with letters, no skin tone, no flag, not too long."""
    lettered = re.search("[a-z][^a-z ]*[a-z]", concept)
    return bool(lettered) and len(concept.split()) <= 7 and not SKIN.search(concept)


@lru_cache(maxsize=256)
def _subjects(package: str) -> dict[str, dict[str, None]]:
    """The categories of each icon, as words, in order."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for category, members in sources.metadata(package).get("categories", {}).items():
        spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", category).lower()
        parts = (part.strip() for part in re.split(r"[&/+-]|\band\b", spaced))
        subjects = dict.fromkeys(part for part in parts if part and part not in DULL)
        for icon in members:
            found[icon] |= subjects
    return found


def _emoji_drawing(package: str, icon: str, emoji: sources.Emoji) -> Drawing:
    house = houses.by_package()[package]
    subjects = tuple(w for w in emoji.subgroup.split("-") if w not in ("other", "object"))
    name = emoji.name.lower()
    words = (word.lower() for word in emoji.keywords)
    synonyms = tuple(dict.fromkeys(word for word in words if word != name))
    return Drawing(package, icon, house.name, name, house.packages[package], subjects, synonyms)


def _icon_drawing(package: str, icon: str, aliases: list[str]) -> Drawing | None:
    words, medium = split_style(package, icon)
    concept = spell(words)
    if _is_brand(words) or not is_worth_a_name(concept):
        return None
    house = houses.by_package()[package].name
    others = (spell(split_style(package, alias)[0]) for alias in aliases)
    synonyms = dict.fromkeys(o for o in others if o != concept and is_worth_a_name(o))
    subjects = tuple(_subjects(package)[icon])
    return Drawing(package, icon, house, concept, medium, subjects, tuple(synonyms))


@lru_cache(maxsize=256)
def read(package: str) -> list[Drawing]:
    """The drawings of one package, named; brands, flags of countries and skin tones left out."""
    matched = {}
    if "emoji" in houses.by_package()[package].packages[package] or "emoji" in package:
        matched = sources.drawn_emoji(package)
    aliases, found = defaultdict(list), []
    for alias, icon in sources.aliases(package).items():
        aliases[icon].append(alias)
    for icon, entry in sources.icons(package)["icons"].items():
        if icon in matched:
            found.append(_emoji_drawing(package, icon, matched[icon]))
        elif not entry.get("hidden"):
            drawing = _icon_drawing(package, icon, aliases[icon])
            found += [drawing] if drawing else []
    return found


@lru_cache(maxsize=3)
def drawings(role: str) -> list[Drawing]:
    """All drawings of the houses of a role, in the order of the table.

    Args:
        role: One of `houses.ROLES`.

    Returns:
        The drawings. Names that differ in blanks and hyphens only ("check box", "checkbox") are
        one concept, in the emoji's spelling where there is one, else in the commonest.
    """
    found = [drawing for package in houses.packages(role) for drawing in read(package)]
    return [replace(d, concept=_spellings()[sources.squash(d.concept)]) for d in found]


@lru_cache(maxsize=1)
def _spellings() -> dict[str, str]:
    """One spelling for each squashed name, the same for all roles."""
    counted: dict[str, Counter[str]] = defaultdict(Counter)
    for package in houses.by_package():
        for drawing in read(package):
            counted[sources.squash(drawing.concept)][drawing.concept] += 1
    best = {key: max(c.items(), key=lambda kv: (kv[1], kv[0]))[0] for key, c in counted.items()}
    return best | {sources.squash(e.name): e.name.lower() for e in sources.emoji()}
