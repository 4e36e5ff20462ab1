"""Makes a shop of django-oscar with orders: `make_oscar.py ADDRESS ORDERS`; ADDRESS is a file, or postgresql://…."""

import random
import sys
import warnings
from urllib.parse import urlsplit

import django
from django.apps import apps
from django.conf import settings
from django.core.management import call_command
from oscar import defaults

warnings.simplefilter("ignore")
OSCAR = (
    "analytics.apps.Analytics checkout.apps.Checkout address.apps.Address shipping.apps.Shipping "
    "catalogue.apps.Catalogue catalogue.reviews.apps.CatalogueReviews communication.apps.Communication "
    "partner.apps.Partner basket.apps.Basket payment.apps.Payment offer.apps.Offer order.apps.Order "
    "customer.apps.Customer search.apps.Search voucher.apps.Voucher wishlists.apps.Wishlists dashboard.apps.Dashboard"
)
DASHBOARD = "reports users orders catalogue offers partners pages ranges reviews vouchers communications shipping"


class WithoutMigrations:
    """Makes Django create each table at once, as its models are now."""

    def __contains__(self, name: str) -> bool:
        return True

    def __getitem__(self, name: str) -> None:
        return None


def database(address: str) -> dict[str, object]:
    """The settings of Django's database."""
    if "://" not in address:
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": address}
    parts = urlsplit(address)
    return {
        "ENGINE": "django.db.backends.postgresql", "NAME": parts.path[1:], "USER": parts.username,
        "PASSWORD": parts.password, "HOST": parts.hostname, "PORT": parts.port,
    }  # fmt: skip


def set_up(address: str) -> None:
    """Configure Django."""
    contrib = "admin auth contenttypes sessions messages staticfiles sites flatpages"
    settings.configure(
        **{name: value for name, value in vars(defaults).items() if name.isupper()}
        | {
            "SECRET_KEY": "not-a-secret",
            "USE_TZ": True,
            "DEFAULT_AUTO_FIELD": "django.db.models.AutoField",
            "SITE_ID": 1,
            "MIGRATION_MODULES": WithoutMigrations(),
            "INSTALLED_APPS": [
                *(f"django.contrib.{name}" for name in contrib.split()),
                "oscar.config.Shop",
                *(f"oscar.apps.{name}Config" for name in OSCAR.split()),
                *(f"oscar.apps.dashboard.{name}.apps.{name.title()}DashboardConfig" for name in DASHBOARD.split()),
                "widget_tweaks", "haystack", "treebeard", "django_tables2",
            ],
            "HAYSTACK_CONNECTIONS": {"default": {"ENGINE": "haystack.backends.simple_backend.SimpleEngine"}},
            "DATABASES": {"default": database(address)},
            "PASSWORD_HASHERS": ["django.contrib.auth.hashers.MD5PasswordHasher"],
            "OSCAR_INITIAL_ORDER_STATUS": "Pending",
            "OSCAR_ORDER_STATUS_PIPELINE": {"Pending": ("Packed",), "Packed": ("Shipped",), "Shipped": ()},
        }
    )  # fmt: skip
    django.setup()


def main(address: str, orders: int) -> None:
    """Make the tables, and orders with their changes of status."""
    set_up(address)
    call_command("migrate", run_syncdb=True, verbosity=0)
    from oscar.test.factories import UserFactory, create_order

    chance = random.Random(1)
    users = [UserFactory(email=f"user{number}@example.com") for number in range(5)]
    for number in range(orders):
        order = create_order(number=str(100000 + number), user=chance.choice(users))
        for status in ("Packed", "Shipped")[: number % 3]:
            order.set_status(status)
    print(len(list(apps.get_models())))


main(sys.argv[1], int(sys.argv[2]))
