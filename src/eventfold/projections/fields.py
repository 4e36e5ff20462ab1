"""The columns of a read model that queries may name.

Knows: definitions. Does not know: targets, views.
"""

from __future__ import annotations

from eventfold.core.table import RowCodec
from eventfold.errors import InvalidProjection
from eventfold.projections.definition import ProjectionDefinition
from eventfold.selection.check import TableFields


def codec_of(definition: ProjectionDefinition) -> RowCodec:
    """Return the codec of a read model's rows. Raises InvalidProjection if it is written in SQL."""
    if definition.rows is None:
        raise InvalidProjection(
            f"{definition.name} declares its own tables, which have no row class.", "Query them with SQL."
        )
    return definition.rows


def fields_of(definition: ProjectionDefinition) -> TableFields:
    """Return the fields of a read model, against which filters are checked."""
    codec = codec_of(definition)
    if codec.fields is None:
        codec.fields = TableFields.of(definition.name, definition.cls, codec)
    fields: TableFields = codec.fields
    return fields
