"""Names of tables and columns as words: names of classes and tags made of them, and what a column's name suggests.

Knows: English names as applications write them. Does not know: values, schemas.
"""

from __future__ import annotations

import keyword
import re
from collections import Counter
from collections.abc import Iterable, Sequence

CREATED = re.compile(
    r"_?(created|creation|inserted|registered|joined|placed|submitted|entered)(_?(at|on|date|time|datetime|ts))?"
    r"|date_?(created|placed|joined|submitted|added|entered)|(create|insert|entry|order|invoice|post)_?(date|time)|added(_at)?"
)
UPDATED = re.compile(
    r"(last_?)?(updated|modified|changed|activity|edited|touched)(_?(at|on|date|time|ts))?|_activity|changetime|mtime"
    r"|date_?(updated|modified|changed|last_modified)|(update|modification|change)_?(date|time)|last_?update"
    r"|lock_?version|row_?version|version_?id|xmin|etag"
)
DATED = re.compile(r"(?:date_)?([a-z]+ed|[a-z]+t)_(?:at|on|date|time)|date_([a-z]+(?:ed|en))|([a-z]+ed)")
DELETED = re.compile(r"_*(is_?)?(deleted|removed|retired|archived|trashed|discarded)(_?(at|on|date|time))?_*")
STATUS = re.compile(r"(\w+_)?(status|state|stage|phase)|resolution")
PERSONAL: tuple[tuple[str, str], ...] = (
    (r"e_?mail|mail_?addr", "an e-mail address"),
    (r"phone|mobile|fax|(^|_)tel($|_)|msisdn", "a telephone number"),
    (r"(first|last|middle|given|family|maiden|full|real|nick|display|contact)_?name|surname|^name_on", "a name"),
    (r"birth|(^|_)dob($|_)|(^|_)age($|_)|gender|(^|_)sex($|_)|nationality|religion|ethnic", "a personal attribute"),
    (r"(^|_)(street|address|addr|line_?[1-5]|postcode|postal|zip|city|town)(_?code|_?\d|$|_)", "a postal address"),
    (r"(^|_)(ip|ipnr|ip_?addr(ess)?|remote_?addr|user_?agent)($|_)|lat(itude)?$|lon(gitude)?$", "where a person is"),
    (r"passw(or)?d|(^|_)(token|secret|api_?key|session_?(key|id)|cookie|otp|pin|hash)($|_)", "a credential"),
    (r"(^|_)(iban|bic|ssn|nino|passport|licen[cs]e_?no|tax_?(id|no|number)|vat(in|_?no))($|_)", "an official number"),
    (r"card_?(no|number|holder)|account_?(no|number|holder)|(^|_)(cvv|cvc|pan)($|_)", "a payment detail"),
    (r"user_?name|(^|_)login($|_)|reporter|(^|_)author($|_)(?!.*_id$)", "the name of an account"),
)  # fmt: skip
PEOPLE = re.compile(r"user|customer|person|people|employee|contact|patient|member|author|client|staff|subscriber")


def words_of(name: str) -> list[str]:
    """Return the words of a name in lower case: of `order_line`, `OrderLine` and `order.line` "order" and "line"."""
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return [word.lower() for word in re.split(r"[\W_]+", split) if word]


def singular(word: str) -> str:
    """Return the singular of a plural noun: "customer" of "customers"; other words unchanged."""
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if re.search(r"(ss|sh|ch|x)es$", word):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is", "as")) and len(word) > 3:
        return word[:-1]
    return word


def entity_names(labels: Sequence[str]) -> dict[str, list[str]]:
    """Return the words by which each table is called: without the prefix of its application, where that is unambiguous.

    `catalogue_product` is "product"; `order_line` and `basket_line` keep both words; `order_order` is "order".
    """
    split = {label: words_of(label) or ["table"] for label in labels}
    prefixes = Counter(words[0] for words in split.values() if len(words) > 1)
    short: dict[str, list[str]] = {}
    for label, words in split.items():
        rest = words[1:] if len(words) > 1 and prefixes[words[0]] > 1 else words
        short[label] = [*rest[:-1], singular(rest[-1])]
    counted = Counter(map(tuple, short.values()))
    taken: set[tuple[str, ...]] = set()
    found: dict[str, list[str]] = {}
    for label, words in split.items():
        chosen = short[label]
        if counted[tuple(chosen)] > 1:
            chosen = [*words[:-1], singular(words[-1])] if len(words) > 1 else words
        if tuple(chosen) in taken:
            chosen = words
        while tuple(chosen) in taken:
            chosen = [*chosen, "row"]
        taken.add(tuple(chosen))
        found[label] = chosen
    return found


def class_name(words: Iterable[str]) -> str:
    """Return words as the name of a class: OrderLine."""
    text = "".join(word[:1].upper() + word[1:] for word in words)
    return text if text[:1].isalpha() else f"T{text}"


def snake_name(words: Iterable[str]) -> str:
    """Return words as the key of a tag, or as a field: order_line."""
    return "_".join(words)


def field_name(column: str, taken: Iterable[str] = ()) -> str:
    """Return a name for the field of a column that Python accepts and that no other field has."""
    text = re.sub(r"\W", "_", column)
    text = text.strip("_") if text.startswith("_") else text  # a struct's fields may not be private
    text = text if text and not text[0].isdigit() else f"c_{text}"
    text = f"{text}_" if keyword.iskeyword(text) or text in RESERVED else text
    names = set(taken)
    while text in names:
        text += "_"
    return text


RESERVED = frozenset(("type", "tags", "self"))  # of these `type` shadows a name that the class body needs


def past_event(entity: str, value: str) -> str:
    """Return the name of the event that a value of a status stands for: OrderShipped, OrderBeingProcessed."""
    return entity + class_name(words_of(value) or ["other"])


def dated_event(entity: str, column: str) -> str | None:
    """Return the name of the event of which a column is the time: OrderShipped of shipped_at; None if it is none."""
    found = DATED.fullmatch(column.lower())
    verb = next((part for part in found.groups() if part), None) if found else None
    if verb is None or verb in ("last", "next", "start", "exact"):
        return None
    return entity + verb.capitalize()


def personal_data(column: str, table: str) -> str | None:
    """Return what personal data a column may hold, by its name; None if nothing suggests so."""
    name = "_".join(words_of(column))
    for pattern, what in PERSONAL:
        if re.search(pattern, name):
            return what
    if name in ("name", "number", "expiry_date") and "card" in table:
        return "a payment detail"
    if name == "name" and PEOPLE.search(words_of(table)[-1] if words_of(table) else ""):
        return "a name"
    return None
