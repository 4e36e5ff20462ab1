"""Makes a table that postgresql-audit watches by its triggers, and changes it: `make_audit.py ADDRESS`."""

import sys

import sqlalchemy as sa
from postgresql_audit import VersioningManager
from sqlalchemy.orm import DeclarativeBase, Session, configure_mappers


class Base(DeclarativeBase):
    """The base of the mapped classes."""


manager = VersioningManager()
manager.init(Base)


class Article(Base):
    """A watched row."""

    __tablename__ = "article"
    __versioned__: dict[str, object] = {}
    id = sa.Column(sa.Integer, primary_key=True)
    title = sa.Column(sa.Text)
    price = sa.Column(sa.Numeric(20, 2))
    big = sa.Column(sa.BigInteger)


configure_mappers()
engine = sa.create_engine(sys.argv[1])
with engine.begin() as connection:
    for watching in (manager.transaction_cls, manager.activity_cls):  # its functions are made with these
        watching.__table__.create(connection)
    Base.metadata.create_all(connection)
with Session(engine) as session:
    article = Article(title="Tea", price="1.50", big=9007199254740993)
    session.add(article)
    session.commit()
    article.price = "20000000000000000.01"
    session.commit()
    session.delete(article)
    session.commit()
engine.dispose()
