"""How long recordings are kept: the rules. Pure.

    [[retention]]
    match = "param.queue=sales"
    keep = "90d"

The first rule that matches a recording counts. One that none matches is kept for ever, unless
space is asked for; a rule with `keep = "forever"` protects from that, too.

Two clocks must agree that a recording is old: the time in its document, and that of its file. So
neither a wrong start time nor a copy of an old folder makes anything expire. Nothing expires that
is younger than a day. Where more than a share of all would go at once, nothing goes: the clock
may have jumped.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from receiver.catalogue import query
from receiver.catalogue.tokens import Clause, agrees
from receiver.config.settings import Config
from receiver.errors import BadWord, ConfigurationError, RemovalError
from receiver.media import timestamp

FOREVER: Final = "forever"
LEAST_MS: Final = 24 * 3600 * 1000
"""Younger recordings stay, whatever a rule says."""
_KEEP: Final = re.compile(r"([0-9]{1,5})([hdwy])")
_UNIT_MS: Final = {"h": 3_600_000, "d": 86_400_000, "w": 604_800_000, "y": 31_536_000_000}
_WORDS: Final = frozenset(
    {"call", "stream", "label", "finding", "track", "complete", "min_duration", "max_duration"}
)
"""Words of a search that a rule may have; `param.NAME`, too."""
_NOW: Final = datetime.fromtimestamp(0, UTC)  # no word here depends on it


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule; `keep_ms` is `None` where it keeps for ever. `text` is how people know it."""

    text: str
    clauses: tuple[Clause, ...]
    least_ms: float | None
    most_ms: float | None
    keep_ms: int | None


@dataclass(frozen=True, slots=True)
class Facts:
    """What of a recording matters here: times are milliseconds since 1970.

    `tokens` are those by which the catalogue finds it; `written_ms` is when its document was
    written, `None` where that is not known yet.
    """

    id: str
    folder: str
    started_ms: int
    written_ms: int | None
    duration_ms: float
    held: bool
    tokens: Collection[str]

    @property
    def from_ms(self) -> int:
        """Return when its age begins: the later of the times that are known."""
        return max(self.started_ms, self.written_ms or self.started_ms)


@dataclass(frozen=True, slots=True)
class Expiry:
    """What may be deleted, and why: the rule's text, or what is asked for."""

    facts: Facts
    rule: str


def keep_ms(text: str) -> int | None:
    """Return how long `90d`, `12w`, `7y` or `36h` is; `None` for `forever`. A year has 365 days.

    Raises:
        ValueError: it is none of these, or not even a day.
    """
    if text == FOREVER:
        return None
    found = _KEEP.fullmatch(text)
    length = int(found[1]) * _UNIT_MS[found[2]] if found else 0
    if length < LEAST_MS:
        raise ValueError(text)
    return length


def rule(number: int, match: Sequence[str], keep: str) -> Rule:
    """Return the rule of a table.

    Args:
        number: Which table it is, from 1 on, for errors.
        match: Words of a search, such as `param.queue=sales`; all must agree, and none is all.
        keep: How long, as `keep_ms` has it.

    Raises:
        ConfigurationError: a word cannot be used; the text says which one.
    """
    called = f"retention {number}"
    pairs = [text.partition("=")[::2] for text in match]
    if bad := [word for word, _ in pairs if not _is_word(word)]:
        known = ", ".join([*sorted(_WORDS), "param.NAME"])
        raise ConfigurationError(f"{called}: match: {bad[0][:40]!r} is none of {known}")
    if empty := [word for word, value in pairs if not value.strip()]:
        raise ConfigurationError(f"{called}: match: {empty[0]} needs a value, as in {empty[0]}=…")
    try:
        found = query.parse(pairs, _NOW)
    except BadWord as error:
        raise ConfigurationError(f"{called}: match: {error}") from None
    try:
        length = keep_ms(keep)
    except ValueError:
        raise ConfigurationError(
            f"{called}: keep must be like 90d, 12w or 7y, and at least a day; or forever"
        ) from None
    text = f"{' '.join(match) or 'all'}: {keep}"
    return Rule(text, found.clauses, found.least_ms, found.most_ms, length)


def rules_of(config: Config) -> tuple[Rule, ...]:
    """Return the rules of the settings.

    Raises:
        ConfigurationError: one cannot be used; the text says which.
    """
    tables = enumerate(config.retention, 1)
    return tuple(rule(number, each.match, each.keep) for number, each in tables)


def facts_from(columns: Mapping[str, Any], written_ms: int | None = None) -> Facts:
    """Return the facts of a recording whose columns are those of the catalogue's row."""
    started = datetime.fromisoformat(columns["started_at"])
    return Facts(
        id=columns["id"],
        folder=columns["folder"],
        started_ms=round(started.timestamp() * 1000),
        written_ms=written_ms,
        duration_ms=columns["duration_ms"],
        held=bool(columns["held"]),
        tokens=frozenset(columns["tokens"].split(" ")),
    )


def _is_word(word: str) -> bool:
    return word in _WORDS or (word.startswith(query.PARAMETER) and word != query.PARAMETER)


def rule_of(rules: Iterable[Rule], facts: Facts) -> Rule | None:
    """Return the rule that counts for a recording, the first that matches, if one does."""
    return next((each for each in rules if _matches(each, facts)), None)


def _matches(rule: Rule, facts: Facts) -> bool:
    if rule.least_ms is not None and facts.duration_ms < rule.least_ms:
        return False
    if rule.most_ms is not None and facts.duration_ms > rule.most_ms:
        return False
    return all(agrees(clause, facts.tokens) for clause in rule.clauses)


def until_ms(rules: Iterable[Rule], facts: Facts) -> tuple[int | None, str]:
    """Return until when a recording is kept, and by which rule; `None` is for ever."""
    found = rule_of(rules, facts)
    if found is None:
        return None, ""
    if found.keep_ms is None:
        return None, found.text
    return facts.from_ms + max(found.keep_ms, LEAST_MS), found.text


def kept_text(rules: Sequence[Rule], facts: Facts) -> str:
    """Return until when a recording is kept and by which rule, in words; empty without a rule."""
    until, text = until_ms(rules, facts)
    if not text:
        return ""
    when = "for ever" if until is None else f"until {timestamp(until)[:16]}Z"
    return f"{when} by the rule {text}"


def expired(rules: Sequence[Rule], facts: Facts, now_ms: int) -> Expiry | None:
    """Return that a recording's time is over, if it is."""
    if facts.held:
        return None
    until, text = until_ms(rules, facts)
    return Expiry(facts, text) if until is not None and until <= now_ms else None


def is_unprotected(rules: Sequence[Rule], facts: Facts, now_ms: int) -> bool:
    """Whether a recording may go where space is asked for: no hold, no rule, older than a day."""
    is_old = facts.from_ms + LEAST_MS <= now_ms
    return is_old and not facts.held and rule_of(rules, facts) is None


def shortest_ms(rules: Iterable[Rule]) -> int | None:
    """Return after how long the first recording may expire; `None` where none ever does."""
    return min((each.keep_ms for each in rules if each.keep_ms is not None), default=None)


def enough(sized: Iterable[tuple[Facts, int]], wanted: int, asked_by: str) -> Iterator[Expiry]:
    """Yield the first recordings, each given with its bytes, that make up what is wanted."""
    freed = 0
    for facts, size in sized:
        if freed >= wanted:
            return
        freed += size
        yield Expiry(facts, asked_by)


def refuse_too_many(count: int, total: int, most_percent: int) -> None:
    """Refuse to delete more than a share of all recordings at once.

    Raises:
        RemovalError: so many would go.
    """
    if count * 100 > total * most_percent:
        raise RemovalError(
            f"{count} of {total} recordings would be deleted at once, which is more than "
            f"{most_percent} %: nothing was deleted. See whether the clock is right, and what "
            "'receiver retention --dry-run' says; 'receiver retention run --max-share 100' "
            "does it all the same"
        )
