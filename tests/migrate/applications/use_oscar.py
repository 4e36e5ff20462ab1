"""Uses a shop of django-oscar through its own views: `use_oscar.py ADDRESS WHAT …`.

work SEED TIMES      customers buy and review, staff packs, ships and writes notes; prints the last order's number
status NUMBER        prints an order's status, as the application sees it
refused NUMBER       the staff ships an order while its tables are cut over: prints the database's error
check                shows every order in the dashboard; prints how many
"""

import sys

from django.db import DatabaseError
from oscar_shop import Shopping, set_up


def work(seed: str, times: str) -> None:
    """Do what people do, some rounds of it."""
    people = Shopping(int(seed))
    people.begin()
    number = ""
    for turn in range(int(times)):
        number = people.buy()
        assert people.note(number, f"round {turn}") == 302
        if turn % 2:
            assert people.ship(number, "Packed") == 302
        if turn % 3 == 0:
            assert people.review() in (200, 302)  # 200: this customer has reviewed it
    print(number)


def until(seed: str) -> None:
    """Work until a write is refused: oscar answers a checkout that fails with a page, other requests with the error."""
    people, bought = Shopping(int(seed)), 0
    people.begin()
    try:
        while True:
            number = people.buy()
            bought += 1
            people.note(number, "under load")
            people.ship(number, "Packed")
    except (DatabaseError, AssertionError) as error:
        print(f"{type(error).__name__}: {error}")
    refused("200000")
    print(f"bought {bought}")


def status(number: str) -> None:
    """Print an order's status."""
    from oscar.core.loading import get_model

    print(get_model("order", "Order").objects.get(number=number).status)


def refused(number: str) -> None:
    """Try to write as before."""
    people = Shopping(1)
    people.begin()
    try:
        people.ship(number, "Packed")
    except DatabaseError as error:
        print(f"{type(error).__name__}: {error}")


def check() -> None:
    """Show every order in the dashboard, as its staff does."""
    from oscar.core.loading import get_model

    people = Shopping(1)
    people.begin()
    shown = 0
    for order in get_model("order", "Order").objects.all():
        page = people.staff.get(f"/dashboard/orders/{order.number}/")
        assert page.status_code == 200 and order.number in page.content.decode()
        assert order.lines.count() and order.total_incl_tax >= 0
        shown += 1
    print(shown)


if __name__ == "__main__":
    set_up(sys.argv[1])
    globals()[sys.argv[2]](*sys.argv[3:])
