"""Makes a shop of django-oscar with orders: `make_oscar.py ADDRESS ORDERS`; ADDRESS is a file, or postgresql://…."""

import random
import sys

from django.apps import apps
from django.core.management import call_command
from oscar_shop import PASSWORD, set_up


def main(address: str, orders: int) -> None:
    """Make the tables, people, products, and orders with their changes of status."""
    set_up(address)
    call_command("migrate", run_syncdb=True, verbosity=0)
    from oscar.test.factories import CountryFactory, ProductFactory, StockRecordFactory, UserFactory, create_order

    chance = random.Random(1)
    users = [UserFactory(email=f"user{number}@example.com", password=PASSWORD) for number in range(5)]
    UserFactory(email="staff@example.com", password=PASSWORD, is_staff=True, is_superuser=True)
    CountryFactory(iso_3166_1_a2="GB", is_shipping_country=True)
    for number in range(10):
        product = ProductFactory(title=f"Tool {number}", stockrecords=None)
        StockRecordFactory(product=product, price_currency="EUR", num_in_stock=100_000)
    for number in range(orders):
        order = create_order(number=str(200000 + number), user=chance.choice(users))
        for status in ("Packed", "Shipped")[: number % 3]:
            order.set_status(status)
    print(len(list(apps.get_models())))


main(sys.argv[1], int(sys.argv[2]))
