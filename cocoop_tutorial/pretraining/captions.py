"""What a drawing is called: sentence forms, names, subjects, and which captions are true of it.

A caption is a form ("an icon of a {}"), a name, perhaps a subject (", a type of bird"). A name
stays one name for all that it means: "mouse" is an animal and a device. What else a caption
says, its medium or its subject, is true of some drawings of that name and false of others, so
the text tower has to read it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from open_clip.tokenizer import SimpleTokenizer

from cocoop_tutorial.datasets.icons.names import Drawing

# Subject -> realm, and the categories of packages and of Unicode that belong to it. One name in
# two realms has two meanings; subjects without a realm go with any.
SUBJECTS: dict[str, tuple[str, str]] = {
    "animal": ("life", "animal animals mammal bird bug marine reptile monkey amphibian"),
    "bird": ("life", "bird"),
    "insect": ("life", "bug"),
    "sea animal": ("life", "marine"),
    "plant": ("life", "plant flower"),
    "flower": ("life", "flower"),
    "food": ("food", "food foods fruit fruits vegetable vegetables prepared sweet asian nutrition"),
    "fruit": ("food", "fruit"),
    "vegetable": ("food", "vegetable"),
    "dessert": ("food", "sweet"),
    "drink": ("food", "drink beverage"),
    "weather": ("sky", "weather sky"),
    "person": ("person", "person people peoples users role family"),
    "face": ("person", "face smiling affection tongue neutral sleepy unwell emotions"),
    "body part": ("person", "body parts"),
    "hand gesture": ("person", "hands hand gesture fingers finger"),
    "vehicle": ("thing", "transport vehicles ground air automotive"),
    "building": ("thing", "building buildings build"),
    "place": ("thing", "place places geographic"),
    "device": ("thing", "computer computers hardware devices phone"),
    "tool": ("thing", "tool construction"),
    "clothing": ("thing", "clothing clothes"),
    "cosmetic": ("thing", "makeups"),
    "household item": ("thing", "household"),
    "office item": ("thing", "office writing book paper"),
    "musical instrument": ("thing", "instrument"),
    "game": ("thing", "game games chess"),
    "arrow": ("abstract", "arrow arrows"),
    "interface symbol": ("abstract", "interfaces edit editors toggle status components "
                                     "design code"),
    "editing symbol": ("abstract", "edit editors"),
    "status symbol": ("abstract", "status"),
    "shape": ("abstract", "shapes geometric graphics"),
    "chart": ("abstract", "charts graphs datas"),
    "sign": ("abstract", "sign warning alert"),
    "symbol": ("abstract", "symbol symbols punctuation math mathematics zodiac religion alphanum "
                           "keycap gender genders"),
    "sport": ("", "sport sports fitness exercise"),
    "music": ("", "music audio sound musical"),
    "medicine": ("", "medical pharmacy diagnostics medications blood ppe health"),
    "disease": ("", "conditions zoonoses"),
    "money": ("", "money currency payments finance"),
    "time": ("", "time date"),
    "communication": ("", "communication communicate chat mail"),
    "security": ("", "safe security lock"),
    "energy": ("", "energy"),
    "science": ("", "science"),
    "travel": ("", "travel"),
    "shopping": ("", "shopping"),
}  # fmt: skip
MASS = frozenset(
    """food weather clothing music medicine money time communication security energy science travel
    shopping bread rice water fire meat milk cheese butter luggage furniture grass corn honey salt
    garlic bacon sushi wood smoke snow rain fog wind hair mail audio wifi text""".split()
)  # nouns that take no article
MEDIA = {  # what a caption may call each medium
    "outline": ("an outline icon of a {}", "a line icon of a {}", "a {}, outline icon"),
    "solid": ("a solid icon of a {}", "a filled icon of a {}", "a {}, solid icon"),
    "duotone": ("a duotone icon of a {}", "a two-tone icon of a {}", "a {}, duotone icon"),
    "flat colour": ("a flat color icon of a {}", "a color icon of a {}", "a {}, flat color icon"),
    "emoji": ("a color emoji of a {}", "a colorful emoji of a {}", "a {}, color emoji"),
    "black emoji": ("a black emoji of a {}", "a black and white emoji of a {}"),
}
# Kind of form -> the forms with their weights.
FORMS: dict[str, dict[str, float]] = {
    "any": {
        "{}": 28, "a {}": 9, "a drawing of a {}": 4, "an image of a {}": 4, "this is a {}": 2,
        "the {}": 2, "a drawing of {}": 1, "an image of {}": 1, "a sketch of a {}": 0.7,
        "there is a {}": 0.5, "one {}": 0.5, "a small {}": 0.5, "a large {}": 0.5, "my {}": 0.5,
        "a nice {}": 0.3, "a good drawing of a {}": 0.3, "a bad drawing of a {}": 0.3,
        "a cropped image of a {}": 0.3, "a blurry image of a {}": 0.3, "a clean image of a {}": 0.3,
        "a cartoon of a {}": 0.5, "art of a {}": 0.3, "a rendering of a {}": 0.5,
        "a sticker of a {}": 0.5, "a low resolution image of a {}": 0.3,
    },
    "photo": {
        "a photo of a {}": 6, "a picture of a {}": 6, "a photo of the {}": 1,
        "a painting of a {}": 1,
        "a close-up photo of a {}": 0.5, "a good photo of a {}": 0.5, "a bad photo of a {}": 0.5,
        "a bright photo of a {}": 0.5, "a photo of many {}": 0.3, "a photo of my {}": 0.3,
    },
    "symbol": {
        "a {} symbol": 5, "a {} sign": 3, "a {} button": 3, "a symbol of a {}": 2,
        "a symbol for {}": 2,
    },
    "an icon": {
        "an icon of a {}": 12, "a {} icon": 5, "an icon of {}": 2, "the {} icon": 1,
        "a pictogram of a {}": 1, "a simple icon of a {}": 0.5, "a black icon of a {}": 0.5,
    },
    "an emoji": {
        "an emoji of a {}": 10, "an emoji of {}": 4, "a {} emoji": 4, "the {} emoji": 1,
        "a cute emoji of a {}": 0.5,
    },
    **{medium: dict.fromkeys(forms, 4.0) for medium, forms in MEDIA.items()},
}  # fmt: skip
KINDS = tuple(FORMS)
_tokenizer = SimpleTokenizer()
START, END = _tokenizer.sot_token_id, _tokenizer.eot_token_id


def article(name: str) -> str:
    """What English wants before a name: "a ", "an " or nothing."""
    last = name.split()[-1]
    plural = last.endswith("s") and not last.endswith(("ss", "us", "is", "ous"))
    if plural or last in MASS or not name[0].isalpha() or re.search(r"[:,]|\d$", name):
        return ""
    vowel = name[0] in "aeiou" and not re.match(r"u(ni|s[ae]|kulele|rin)|eu|one\b|once", name)
    return "an " if vowel or re.match(r"hour|honest|x-?ray|h-|f-", name) else "a "


def fill(form: str, name: str) -> str:
    """A form with a name in it and the right article before it."""
    prefix, suffix = split(form, article(name))
    return prefix + name + suffix


def split(form: str, before: str) -> tuple[str, str]:
    """What stands before and after the name, when the name's article is `before`."""
    prefix, suffix = form.split("{}")
    if prefix == "a " or prefix.endswith(" a "):
        prefix = prefix[:-2] + before
    return prefix, suffix


def subject_phrases(subject: str) -> tuple[str, str]:
    """Two ways to add a subject to a caption."""
    before = "" if subject in MASS else article(subject)
    return f", a type of {subject}", f", {before}{subject}"


def subjects_of(drawing: Drawing) -> frozenset[str]:
    """Our subjects, out of the categories of its package."""
    raw = set(drawing.subjects)
    return frozenset(s for s, (_, members) in SUBJECTS.items() if raw & set(members.split()))


def realms_of(subjects: Iterable[str]) -> frozenset[str]:
    """The realms that subjects belong to."""
    return frozenset(SUBJECTS[s][0] for s in subjects if SUBJECTS[s][0])


def pool_subjects(drawings: list[Drawing]) -> list[frozenset[str]]:
    """Subjects of each drawing, with those of like-named ones where they mean the same.

    A drawing whose package tells no subject takes those of the name, if all that are known lie
    in one realm; one that has subjects takes those of the name that lie in its own realms.
    """
    own = [subjects_of(d) for d in drawings]
    named: dict[str, set[str]] = {}
    for drawing, subjects in zip(drawings, own, strict=True):
        named.setdefault(drawing.concept, set()).update(subjects)
    pooled = []
    for drawing, subjects in zip(drawings, own, strict=True):
        everything = named[drawing.concept]
        realms = realms_of(subjects)
        if not subjects:
            pooled.append(frozenset(everything if len(realms_of(everything)) == 1 else ()))
        else:
            pooled.append(subjects | {s for s in everything if SUBJECTS[s][0] in realms})
    return pooled


def _subject_verdict(subject: str, known: frozenset[str]) -> int:
    """1 if a subject is among the known ones, -1 if it lies in another realm, else 0."""
    realm, realms = SUBJECTS[subject][0], realms_of(known)
    return 1 if subject in known else -int(bool(realm and realms and realm not in realms))


def encode(text: str) -> list[int]:
    """CLIP's token ids of a text, without start and end."""
    return _tokenizer.encode(text)


@dataclass(frozen=True)
class Look:
    """What decides which forms suit a drawing."""

    medium: str
    coloured: bool
    symbolic: bool | None  # None: not known

    def weight(self, kind: str) -> float:
        """How much more or less often than its weight a form of this kind is said of it."""
        emoji = "emoji" in self.medium
        return {
            "any": 1.0,
            "photo": 1.0 if self.coloured else 0.15,
            "symbol": {True: 1.0, None: 0.4, False: 0.1}[self.symbolic],
            "an icon": float(not emoji),
            "an emoji": float(emoji),
        }.get(kind, float(kind == self.medium))

    def verdict(self, kind: str) -> int:
        """1 if a form of this kind is true of it, -1 if false, 0 if one may say it or not."""
        if kind in MEDIA or kind in ("an icon", "an emoji"):
            return 1 if self.weight(kind) else -1
        return int(self.weight(kind) == 1.0)


def _table(rows: list[list[int]], width: int, blank: int) -> torch.Tensor:
    """Lists of numbers as [N, width]: cut there, and filled up with `blank`."""
    return torch.tensor([(row + [blank] * width)[:width] for row in rows])


def _heights(chances: torch.Tensor) -> torch.Tensor:
    """Chances [N, F] -> where each but the last ends, on a scale of 0 to 1, [N, F - 1]."""
    return (chances.cumsum(1) / chances.sum(1, keepdim=True))[:, :-1].contiguous()


def _padded(texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids [N, longest] of texts, 0 after their ends, and lengths [N]."""
    rows = [encode(text) for text in texts]
    lengths = torch.tensor([len(row) for row in rows])
    return _table(rows, max(1, int(lengths.max())), 0), lengths


class Captions(torch.nn.Module):
    """Draws captions for drawings and knows which are true, on whatever device it is moved to.

    Captions are put together from tokenised parts: CLIP's tokenizer never joins two words, so
    the parts' tokens in a row are the tokens of the whole.

    Args:
        drawings: All drawings, N of them.
        coloured: bool [N]; whether a drawing has colours of its own.
        length: Tokens a caption is padded or cut to.
        subject_share: Share of captions that name a subject, where one is known.
        synonym_share: Share of captions that use a synonym, where there is one.
    """

    def __init__(
        self, drawings: list[Drawing], coloured: np.ndarray, length: int,
        subject_share: float, synonym_share: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.length, self.subject_share = length, subject_share
        self.synonym_share = synonym_share
        self.concept_names = list(dict.fromkeys(d.concept for d in drawings))
        subjects = pool_subjects(drawings)
        self._put_names(drawings)
        self._put_forms()
        self._put_subjects(subjects)
        self._put_looks(drawings, coloured, subjects)
        self._compact()

    def _put(self, **tensors: torch.Tensor) -> None:
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor, persistent=False)

    def _put_names(self, drawings: list[Drawing]) -> None:
        """Names: the concepts first, then other words for them; each drawing's synonyms."""
        meant: dict[str, set[str]] = {}
        for drawing in drawings:
            for word in drawing.synonyms:
                meant.setdefault(word, set()).add(drawing.concept)
        telling = {word for word, concepts in meant.items() if len(concepts) <= 6}
        names = list(dict.fromkeys([*self.concept_names, *sorted(telling)]))
        index = {name: i for i, name in enumerate(names)}
        concept = torch.tensor([index[d.concept] for d in drawings])
        own = [[index[w] for w in d.synonyms if w in telling] for d in drawings]
        pooled: list[dict[int, None]] = [{} for _ in self.concept_names]
        for row, words in zip(concept.tolist(), own, strict=True):
            pooled[row].update(dict.fromkeys(words))
        synonyms = _table(own, 8, -1)
        tokens, lengths = _padded(names)
        articles = torch.tensor([("", "a ", "an ").index(article(name)) for name in names])
        self._put(concept=concept, synonyms=synonyms, n_synonyms=(synonyms >= 0).sum(1))
        self._put(like=_table([list(words) for words in pooled], 12, -1))
        self._put(name_tokens=tokens, name_lengths=lengths, name_articles=articles)

    def _put_forms(self) -> None:
        """Forms: the part before the name in three articles, and the part after it."""
        forms = [(kind, form) for kind in KINDS for form in FORMS[kind]]
        prefixes = [split(form, before)[0] for _, form in forms for before in ("", "a ", "an ")]
        phrases = ["", *(p for subject in SUBJECTS for p in subject_phrases(subject))]
        tails = list(dict.fromkeys(form.split("{}")[1] for _, form in forms))
        suffixes = [
            tail + phrase + dot for tail in tails for phrase in phrases for dot in ("", ".")
        ]
        tokens, lengths = _padded(prefixes)
        self._put(prefix_tokens=tokens, prefix_lengths=lengths)
        tokens, lengths = _padded(suffixes)
        self._put(suffix_tokens=tokens, suffix_lengths=lengths)
        tail = torch.tensor([tails.index(form.split("{}")[1]) for _, form in forms])
        kind = torch.tensor([KINDS.index(kind) for kind, _ in forms])
        self._put(form_tail=tail, form_kind=kind)
        self.n_phrases = len(phrases)

    def _put_subjects(self, subjects: list[frozenset[str]]) -> None:
        """Each drawing's subjects, and the verdict on every subject; column 0 is no subject."""
        number = {name: i for i, name in enumerate(SUBJECTS, 1)}
        verdicts = {known: [1, *(_subject_verdict(s, known) for s in SUBJECTS)]
                    for known in set(subjects)}  # fmt: skip
        listed = _table([sorted(number[s] for s in known) for known in subjects], 8, 0)
        table = torch.tensor([verdicts[known] for known in subjects], dtype=torch.int8)
        self._put(subject_verdicts=table, subjects=listed, n_subjects=(listed > 0).sum(1))

    def _put_looks(
        self, drawings: list[Drawing], coloured: np.ndarray, subjects: list[frozenset[str]]
    ) -> None:
        """How often each form is said of each drawing, and the verdict on every kind of form."""
        looks = []
        for drawing, colour, known in zip(drawings, coloured, subjects, strict=True):
            realms = realms_of(known)
            symbolic = "abstract" in realms if len(realms) == 1 else None
            looks.append(Look(drawing.medium, bool(colour), symbolic))
        unlike = sorted(set(looks), key=str)
        chances = [
            [look.weight(kind) * weight for kind in KINDS for weight in FORMS[kind].values()]
            for look in unlike
        ]
        verdicts = [[look.verdict(kind) for kind in KINDS] for look in unlike]
        self._put(
            look=torch.tensor([unlike.index(look) for look in looks]),
            form_heights=_heights(torch.tensor(chances)),
            kind_verdicts=torch.tensor(verdicts, dtype=torch.int8),
        )

    def _compact(self) -> None:
        """Numbers the tokens in use; compact id i stands for vocabulary[i]."""
        tables = ("name_tokens", "prefix_tokens", "suffix_tokens")
        used = {0, START, END}.union(*(getattr(self, t).unique().tolist() for t in tables))
        self.vocabulary = sorted(used)
        self.lookup = {token: i for i, token in enumerate(self.vocabulary)}
        compact = torch.zeros(END + 1, dtype=torch.long)
        compact[torch.tensor(self.vocabulary)] = torch.arange(len(self.vocabulary))
        for table in tables:
            getattr(self, table).copy_(compact[getattr(self, table)])
        self.start, self.end = self.lookup[START], self.lookup[END]

    def compact(self, texts: list[str]) -> torch.Tensor:
        """Compact token ids [N, length] of texts; tokens out of use become the padding."""
        rows = torch.zeros(len(texts), self.length, dtype=torch.long)
        for i, text in enumerate(texts):
            ids = [self.lookup.get(t, 0) for t in encode(text)[: self.length - 2]]
            rows[i, : len(ids) + 2] = torch.tensor([self.start, *ids, self.end])
        return rows

    def draw(self, rows: torch.Tensor, generator: torch.Generator) -> "Drawn":
        """Draws a caption for each drawing of a batch.

        Args:
            rows: Drawings [B].
            generator: Of the tensors' device.
        """

        def uniform() -> torch.Tensor:
            return torch.rand(len(rows), generator=generator, device=rows.device)

        def pick(table: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
            place = (uniform() * counts[rows]).long()  # below the count, but for counts of 0
            return table[rows].gather(1, place[:, None])[:, 0]

        form = (uniform()[:, None] > self.form_heights[self.look[rows]]).sum(1)
        other = (uniform() < self.synonym_share) & (self.n_synonyms[rows] > 0)
        name = torch.where(other, pick(self.synonyms, self.n_synonyms), self.concept[rows])
        told = (uniform() < self.subject_share) & (self.n_subjects[rows] > 0)
        subject = torch.where(told, pick(self.subjects, self.n_subjects), 0)
        phrase = torch.where(told, 2 * subject - 1 + (uniform() < 0.5).long(), 0)
        suffix = (self.form_tail[form] * self.n_phrases + phrase) * 2 + (uniform() < 0.3).long()
        bare = uniform() < 0.1  # without the article, as some people write
        prefix = 3 * form + torch.where(bare, 0, self.name_articles[name])
        tokens, ends = self.compose(prefix, name, suffix)
        return Drawn(tokens, ends, name, self.form_kind[form], subject)

    def compose(
        self, prefix: torch.Tensor, name: torch.Tensor, suffix: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens [B, length] of prefixes, names and suffixes in a row, and the ends' places [B]."""
        place = torch.arange(self.length - 1, device=name.device)[None]
        body = torch.zeros_like(place).expand(len(name), -1)
        begin = torch.zeros_like(name)[:, None]
        parts = (
            (self.prefix_tokens[prefix], self.prefix_lengths[prefix]),
            (self.name_tokens[name], self.name_lengths[name]),
            (self.suffix_tokens[suffix], self.suffix_lengths[suffix]),
        )
        for table, lengths in parts:
            stop = begin + lengths[:, None]
            here = table.gather(1, (place - begin).clamp(0, table.shape[1] - 1))
            body = torch.where((place >= begin) & (place < stop), here, body)
            begin = stop
        ends = begin.clamp(max=self.length - 2)
        body = torch.where(place < ends, body, torch.where(place == ends, self.end, 0))
        start = torch.full_like(ends, self.start)
        return torch.cat([start, body], dim=1), ends[:, 0] + 1

    def truth(self, rows: torch.Tensor, drawn: "Drawn") -> torch.Tensor:
        """Verdict [B, B] on every caption for every drawing: 1 true, -1 false, 0 left open.

        Left open is what one may or may not say of a drawing: a synonym, or a subject that its
        package does not tell.
        """
        same = self.concept[rows][:, None] == drawn.name[None]
        like = self.like[self.concept[rows]]  # other words for the concept, whoever uses them
        loosely = (like[:, :, None] == drawn.name[None, None]).any(1)
        subject = self.subject_verdicts[rows][:, drawn.subject]
        kind = self.kind_verdicts[self.look[rows]][:, drawn.kind]
        said = torch.minimum(subject, kind)
        verdict = torch.where(same, said, torch.where(loosely, said.clamp(max=0), -1))
        return verdict.fill_diagonal_(1)


@dataclass
class Drawn:
    """Captions of a batch: tokens [B, L], ends' places [B], and what they say, each [B]."""

    tokens: torch.Tensor
    ends: torch.Tensor
    name: torch.Tensor
    kind: torch.Tensor
    subject: torch.Tensor
