"""Tokens: what a recording is found by, and what a search asks for. Pure.

The catalogue keeps one inverted index, `postings`: for each token, the recordings that have it.
Whatever can be searched for is a token: a parameter's value, a label, a finding, a word of a
note, a track, the order of magnitude of a duration. So a search is an intersection of sorted
lists, which costs the same whatever it asks for, and SQLite and PostgreSQL find the same.

A token begins with a letter for its kind. Of ASCII it has only small letters and digits, because
tokenizers fold and split others; those are moved to a private area of Unicode, one by one, so
that a beginning of a value is a beginning of its token.

Prefixes. Of words and values, beginnings of up to `EDGE` characters are tokens, too. A longer
prefix is looked up among all tokens there are (`vocabulary`), or asked of the index.

Notes. A note says what was said, and not everybody may read that. So the words of notes are
tokens of their own kind, which a search looks for only where it is told to.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from receiver.media import parameter_text

EDGE: Final = 8
"""Beginnings of words and values up to this length are tokens of their own."""
MOST_WORDS: Final = 5000
"""Words of one recording that can be searched for."""
_LONGEST: Final = 64
"""Characters of a value that are in its token as they are; a hash of all of it follows."""
_BUCKETS: Final = 40
_NOTE: Final = "m"
"""Before the token of a word that stands in a note."""
_NAME_BYTES: Final = 6

_PRIVATE: Final = 0xE000
_SAFE: Final = {
    code: chr(_PRIVATE + code)
    for code in range(128)
    if not (chr(code).isdigit() or chr(code).islower())
}
_AMBIGUOUS: Final = re.compile("[\ue000-\ue07f]")
_DIACRITICS: Final = re.compile("[\u0300-\u036f]")
_WORD: Final = re.compile(r"[^\W_]+")
_UNSPACED: Final = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"  # Han
)
"""Scripts without spaces: each character, and each pair of neighbours, is a token."""
_ID: Final = re.compile(
    r"[A-Za-z]{0,2}[0-9a-fA-F]{32}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-f]{16}"
)
"""What somebody pasted: the id of a call, stream or recording."""


@dataclass(frozen=True, slots=True)
class Clause:
    """A recording agrees if it has any of these tokens; or one that begins with any of them."""

    tokens: tuple[str, ...]
    is_prefix: bool = False


def agrees(clause: Clause, tokens: Collection[str]) -> bool:
    """Whether a recording with these tokens, without edges, agrees with a clause."""
    if clause.is_prefix:
        return any(each.startswith(clause.tokens) for each in tokens)
    return any(token in tokens or _is_edge(token, tokens) for token in clause.tokens)


def _is_edge(token: str, tokens: Iterable[str]) -> bool:
    return token.startswith("x") and any(each.startswith(token[1:]) for each in tokens)


def with_edges(tokens: Iterable[str]) -> list[str]:
    """Return tokens together with the beginnings that are tokens, too."""
    found = dict.fromkeys(tokens)
    for token in list(found):
        found.update(dict.fromkeys(_edges(token)))
    return list(found)


def _edges(token: str) -> Iterator[str]:
    if start := _start_of_text(token):
        for end in range(start + 1, min(len(token), start + EDGE) + 1):
            yield "x" + token[:end]


def _start_of_text(token: str) -> int:
    """Return where the text of a token begins that can be searched for by prefix, or 0."""
    if token[0] == _NOTE:
        return 2 if token[1] == "w" else 0
    return {"w": 1, "p": 1 + 2 * _NAME_BYTES}.get(token[0], 0)


def has_prefixes(token: str) -> bool:
    """Whether a token belongs into the vocabulary."""
    return bool(_start_of_text(token)) and len(token) - _start_of_text(token) > EDGE


def beginning(*tokens: str) -> Clause:
    """Return the clause for what begins as any of these does, which are one word or value."""
    if len(tokens[0]) - _start_of_text(tokens[0]) <= EDGE:
        return Clause(tuple("x" + token for token in tokens))
    return Clause(tokens, is_prefix=True)


def exact(kind: str, value: str) -> str:
    """Return the token of a value of one of the kinds that are compared as a whole."""
    return kind + _text(value)


def parameter(name: str, value: str) -> str:
    """Return the token of a parameter's value, which is case-sensitive."""
    return f"p{_name(name)}{_text(value)}"


def parameter_name(name: str) -> str:
    """Return the token of having a parameter, whatever its value."""
    return f"n{_name(name)}"


def parameter_prefix(name: str, value: str) -> Clause:
    """Return the clause for values of a parameter that begin like this; an empty one is any."""
    if not value:
        return Clause((parameter_name(name),))
    return beginning(f"p{_name(name)}{value.translate(_SAFE)[:_LONGEST]}")


def _name(name: str) -> str:
    encoded = name.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(encoded, digest_size=_NAME_BYTES).hexdigest()


def _text(value: str) -> str:
    safe = value.translate(_SAFE)
    if len(safe) <= _LONGEST and not _AMBIGUOUS.search(value):
        return safe
    digest = hashlib.blake2b(value.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return f"{safe[:_LONGEST]}{_SAFE[0]}{digest}"


def bucket(duration_ms: float) -> int:
    """Return the order of magnitude of a duration: two for each doubling, from a second on."""
    return 0 if duration_ms < 1000 else min(_BUCKETS, 1 + int(2 * math.log2(duration_ms / 1000)))


def durations(least_ms: float | None, most_ms: float | None) -> Clause:
    """Return the clause for all orders of magnitude within which a duration may be."""
    first = 0 if least_ms is None else bucket(least_ms)
    last = _BUCKETS if most_ms is None else bucket(most_ms)
    return Clause(tuple(f"d{number}" for number in range(first, last + 1)) or ("d",))


def words(text: str) -> Iterator[str]:
    """Yield the tokens of all words of a text, folded: case, width and accents do not count."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    plain = _DIACRITICS.sub("", unicodedata.normalize("NFD", folded))
    for word in _WORD.findall(unicodedata.normalize("NFC", plain)):
        yield from (f"w{part[:_LONGEST]}" for part in _UNSPACED.split(word) if part)
        for run in _UNSPACED.findall(word):
            yield from (f"g{character}" for character in run)
            yield from (f"g{run[at : at + 2]}" for at in range(len(run) - 1))


def search(text: str, *, in_notes: bool) -> Iterator[Clause]:
    """Yield the clauses for what somebody wrote into a search field: all words must be there.

    Args:
        text: what was written.
        in_notes: whether the words of notes are looked for, too.
    """

    def places(token: str) -> tuple[str, ...]:
        return (token, _NOTE + token) if in_notes else (token,)

    for part in text.split():
        found = list(dict.fromkeys(words(part)))
        if _ID.fullmatch(part):
            yield Clause((*(exact(kind, part) for kind in "ikr"), *places(found[0])))
            continue
        grams = [token for token in found if token[0] == "g"]
        pairs = [token for token in grams if len(token) > 2]
        yield from (beginning(*places(token)) for token in found if token[0] == "w")
        yield from (Clause(places(token)) for token in pairs or grams)


def of_recording(
    *,
    recording_id: str,
    call_sid: str,
    stream_sid: str,
    state: str,
    duration_ms: float,
    complete: bool,
    held: bool,
    tracks: Iterable[str],
    findings: Iterable[str],
    labels: Collection[str],
    parameters: Mapping[str, Any],
    notes: Iterable[str] = (),
) -> list[str]:
    """Return all tokens of a recording, without edges; `notes` are the texts of its notes."""
    values = {name: parameter_text(value) for name, value in parameters.items()}
    found = [
        *(exact("r", recording_id), exact("i", call_sid), exact("k", stream_sid)),
        *(exact("s", state), f"d{bucket(duration_ms)}"),
        *(f"c{_yes_or_no(complete)}", f"h{_yes_or_no(held)}"),
        *(exact("t", track) for track in tracks),
        *(exact("f", code) for code in findings),
        *(exact("l", label) for label in labels),
        *(parameter_name(name) for name in values),
        *(parameter(name, value) for name, value in values.items()),
    ]
    named = (token for text in (*values.values(), *labels) for token in words(text))
    noted = (_NOTE + token for text in notes for token in words(text))
    folded = dict.fromkeys(found)
    for token in itertools.chain(named, noted):
        folded[token] = None
        if len(folded) >= len(found) + MOST_WORDS:
            break
    return list(folded)


def _yes_or_no(value: bool) -> str:
    return "yes" if value else "no"
