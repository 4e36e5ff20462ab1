"""Makes a database with versions of SQLAlchemy-Continuum: `make_continuum.py FILE`."""

import sys

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Session, configure_mappers
from sqlalchemy_continuum import make_versioned

make_versioned(user_cls=None)


class Base(DeclarativeBase):
    """The base of the mapped classes."""


class Article(Base):
    """A versioned row."""

    __versioned__: dict[str, object] = {}
    __tablename__ = "article"
    id = sa.Column(sa.Integer, primary_key=True)
    title = sa.Column(sa.Unicode(50))
    price = sa.Column(sa.Numeric(8, 2))


configure_mappers()
engine = sa.create_engine(f"sqlite:///{sys.argv[1]}")
Base.metadata.create_all(engine)
with Session(engine) as session:
    tea = Article(title="Tea", price=1)
    session.add(tea)
    session.commit()
    tea.title = "Green tea"
    session.commit()
    cup = Article(title="Cup")
    session.add(cup)
    session.commit()
    session.delete(cup)
    session.commit()
