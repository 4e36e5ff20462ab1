"""Read models as Django models: `django_model(Balance, app_label="shop")` in the queries of an application.

The model is not managed: its table is the view through which readers see the live generation. Knows: definitions,
Django. Does not know: targets, stores.
"""
# pyright: basic, reportMissingTypeStubs=false, reportIncompatibleMethodOverride=false
# Django has no types of its own.

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, NoReturn
from uuid import UUID

from django.db import connections, models

from eventfold.core.table import Column, ColumnKind
from eventfold.errors import NotSupported
from eventfold.projections.classes import Projection
from eventfold.projections.definition import projection_definition
from eventfold.projections.fields import codec_of
from eventfold.targets.sql.nul_escaping import escape, unescape
from eventfold.targets.sql.statements import postgres_column_name

MAX_DIGITS, PLACES = 65, 30  # of the widest decimal column of all databases


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


class ExactInt(models.BigIntegerField):
    """A whole number, or an enum of them."""

    def get_prep_value(self, value: Any) -> Any:
        """Return the number: of an enum, its value."""
        return super().get_prep_value(_plain(value))


class ExactText(models.TextField):
    """Text, or an enum of texts. PostgreSQL has U+0000 escaped."""

    def get_prep_value(self, value: Any) -> Any:
        """Return the text: of an enum, its value."""
        return super().get_prep_value(_plain(value))

    def from_db_value(self, value: Any, _expression: Any, connection: Any) -> Any:
        """Return the text that was stored."""
        return unescape(value) if isinstance(value, str) and connection.vendor == "postgresql" else value

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        """Return the text as it is stored."""
        plain = value if prepared else self.get_prep_value(value)
        return escape(plain) if isinstance(plain, str) and connection.vendor == "postgresql" else plain


class ExactUuid(models.UUIDField):
    """A UUID, which MariaDB has as text with hyphens."""

    def get_internal_type(self) -> str:
        """Return a name that no backend converts."""
        return "ExactUuid"

    def from_db_value(self, value: Any, _expression: Any, _connection: Any) -> Any:
        """Return a UUID."""
        return UUID(value) if isinstance(value, str) else value

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        """Return the UUID as it is stored."""
        plain = self.to_python(value)
        return plain if plain is None or connection.vendor == "postgresql" else str(plain)


class JsonText(models.TextField):
    """A field that is stored as JSON: a list, a dict, an object. Comparing it is not supported."""

    def from_db_value(self, value: Any, _expression: Any, _connection: Any) -> Any:
        """Return the parsed value."""
        return json.loads(value) if isinstance(value, str) else value


def _decimal(**options: Any) -> Any:
    return models.DecimalField(max_digits=MAX_DIGITS, decimal_places=PLACES, **options)


FIELDS: Mapping[ColumnKind, Callable[..., Any]] = {
    "text": ExactText,
    "int": ExactInt,
    "float": models.FloatField,
    "bool": models.BooleanField,
    "bytes": models.BinaryField,
    "decimal": _decimal,
    "moment": models.DateTimeField,
    "date": models.DateField,
    "uuid": ExactUuid,
    "json": JsonText,
}


def _refuse(*_given: Any, **_named: Any) -> NoReturn:
    raise NotSupported(
        "The rows of a read model are written by its runner only, so Django cannot change them.",
        "Append events; to repair rows, rebuild them: eventfold projections rebuild STORE NAME --switch.",
        capability="writing rows of a read model",
    )


class ReadOnlyQuerySet(models.QuerySet[Any]):
    """A query set that writes nothing."""

    create = bulk_create = bulk_update = get_or_create = update_or_create = update = delete = _refuse


class ReadOnlyManager(models.Manager):
    """Queries of a read model. Raises NotSupported on SQLite for decimals and moments, which are text there."""

    def get_queryset(self) -> ReadOnlyQuerySet:
        """Return all rows."""
        if connections[self.db].vendor == "sqlite" and self.model.has_text_order:
            raise NotSupported(
                f"{self.model.__name__} has decimals or moments, which SQLite would compare as text.",
                "Ask by store.rows(…), or store the read model in PostgreSQL or MariaDB.",
                capability="order of decimals in Django on SQLite",
            )
        return ReadOnlyQuerySet(self.model, using=self._db)


def django_model(projection: type[Projection], app_label: str, name: str | None = None) -> type[models.Model]:
    """Return an unmanaged, read-only Django model of a read model, for a database that PostgreSQL or MariaDB serves.

    `name`: the name of the class, by default the read model's. Fields have the names of the read model; enums are their
    values. A key of several fields is a CompositePrimaryKey (Django 5.2). `save`, `delete` and `update` raise
    NotSupported. Raises InvalidProjection, NotSupported.
    """
    definition = projection_definition(projection)
    table = codec_of(definition).table
    kinds = {column.kind for column in table.columns}
    members: dict[str, Any] = {column.name: _field(column, table.key == (column.name,)) for column in table.columns}
    if len(table.key) > 1:
        members["pk"] = _composite_key(table.key)
    options = {"managed": False, "db_table": table.name, "app_label": app_label, "base_manager_name": "objects"}
    members |= {
        "__module__": projection.__module__,
        "__doc__": projection.__doc__,
        "Meta": type("Meta", (), options),
        "objects": ReadOnlyManager(),
        "save": _refuse,
        "delete": _refuse,
        "has_text_order": bool(kinds & {"decimal", "moment"}),
    }
    return type(name or projection.__name__, (models.Model,), members)


def _field(column: Column, is_key: bool) -> Any:
    return FIELDS[column.kind](
        primary_key=is_key, null=column.nullable, db_column=postgres_column_name(column.name), editable=False
    )


def _composite_key(key: tuple[str, ...]) -> Any:
    composite = getattr(models, "CompositePrimaryKey", None)
    if composite is None:
        raise NotSupported(
            f"The key has {len(key)} fields, and this Django has no composite primary keys.",
            "Install Django 5.2 or newer, or use a read model with one key field.",
            capability="composite primary keys",
        )
    return composite(*key)
