"""A shop of django-oscar: its settings, and what its customers and staff do through its own views.

Knows: Django, oscar. Does not know: eventfold, which tests move its tables to events meanwhile.
"""

import random
import warnings
from urllib.parse import urlsplit

import django
from django.conf import settings
from django.urls import include, path
from oscar import defaults

warnings.simplefilter("ignore")
OSCAR = (
    "analytics.apps.Analytics checkout.apps.Checkout address.apps.Address shipping.apps.Shipping "
    "catalogue.apps.Catalogue catalogue.reviews.apps.CatalogueReviews communication.apps.Communication "
    "partner.apps.Partner basket.apps.Basket payment.apps.Payment offer.apps.Offer order.apps.Order "
    "customer.apps.Customer search.apps.Search voucher.apps.Voucher wishlists.apps.Wishlists dashboard.apps.Dashboard"
)
DASHBOARD = "reports users orders catalogue offers partners pages ranges reviews vouchers communications shipping"
PASSWORD = "not-a-secret"
PROCESSORS = (
    "django.template.context_processors.request django.contrib.auth.context_processors.auth "
    "django.contrib.messages.context_processors.messages oscar.apps.search.context_processors.search_form "
    "oscar.apps.checkout.context_processors.checkout oscar.apps.communication.notifications.context_processors."
    "notifications oscar.core.context_processors.metadata"
)
MIDDLEWARE = (
    "django.contrib.sessions.middleware.SessionMiddleware django.contrib.auth.middleware.AuthenticationMiddleware "
    "django.contrib.messages.middleware.MessageMiddleware oscar.apps.basket.middleware.BasketMiddleware"
)


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
        "OPTIONS": {"application_name": "oscar"},
    }  # fmt: skip


def set_up(address: str) -> None:
    """Configure Django."""
    contrib = "admin auth contenttypes sessions messages staticfiles sites flatpages"
    settings.configure(
        **{name: value for name, value in vars(defaults).items() if name.isupper()}
        | {
            "SECRET_KEY": PASSWORD,
            "USE_TZ": True,
            "DEFAULT_AUTO_FIELD": "django.db.models.AutoField",
            "SITE_ID": 1,
            "ALLOWED_HOSTS": ["testserver"],
            "ROOT_URLCONF": __name__,
            "STATIC_URL": "/static/",
            "LANGUAGE_CODE": "en-gb",
            "MIGRATION_MODULES": WithoutMigrations(),
            "MIDDLEWARE": MIDDLEWARE.split(),
            "TEMPLATES": [
                {
                    "BACKEND": "django.template.backends.django.DjangoTemplates",
                    "DIRS": [],
                    "APP_DIRS": True,
                    "OPTIONS": {"context_processors": PROCESSORS.split()},
                }
            ],
            "INSTALLED_APPS": [
                *(f"django.contrib.{name}" for name in contrib.split()),
                "oscar.config.Shop",
                *(f"oscar.apps.{name}Config" for name in OSCAR.split()),
                *(f"oscar.apps.dashboard.{name}.apps.{name.title()}DashboardConfig" for name in DASHBOARD.split()),
                "widget_tweaks", "haystack", "treebeard", "django_tables2", "sorl.thumbnail",
            ],
            "HAYSTACK_CONNECTIONS": {"default": {"ENGINE": "haystack.backends.simple_backend.SimpleEngine"}},
            "DATABASES": {"default": database(address)},
            "EMAIL_BACKEND": "django.core.mail.backends.dummy.EmailBackend",
            "AUTHENTICATION_BACKENDS": ["oscar.apps.customer.auth_backends.EmailBackend"],
            "PASSWORD_HASHERS": ["django.contrib.auth.hashers.MD5PasswordHasher"],
            "OSCAR_DEFAULT_CURRENCY": "EUR",
            "OSCAR_INITIAL_ORDER_STATUS": "Pending",
            "OSCAR_ORDER_STATUS_PIPELINE": {"Pending": ("Packed",), "Packed": ("Shipped",), "Shipped": ()},
            "OSCAR_ALLOW_ANON_CHECKOUT": False,
        }
    )  # fmt: skip
    django.setup()


def __getattr__(name: str) -> object:
    """Return Django's list of paths, which needs the settings first."""
    if name == "urlpatterns":
        from django.apps import apps

        return [
            path("i18n/", include("django.conf.urls.i18n")),
            path("", include(apps.get_app_config("oscar").urls[0])),
        ]
    raise AttributeError(name)


class Shopping:
    """What people do: each method goes through oscar's own views.

    `seed` makes their choices repeatable. It also says which of the five customers it is: one has one basket.
    """

    def __init__(self, seed: int) -> None:
        from django.test import Client

        self.chance, self._name = random.Random(seed), f"user{seed % 5}@example.com"
        self.customer, self.staff = Client(raise_request_exception=True), Client(raise_request_exception=True)

    def begin(self) -> None:
        """Log in a customer and a member of the staff, whom `make_oscar.py` has made."""
        assert self.customer.login(username=self._name, password=PASSWORD)
        assert self.staff.login(username="staff@example.com", password=PASSWORD)

    def buy(self) -> str:
        """Put products of which there are many into the basket and check out. Returns the order's number."""
        from oscar.core.loading import get_model

        products = list(get_model("catalogue", "Product").objects.filter(title__startswith="Tool"))
        for product in self.chance.sample(products, min(2, len(products))):
            done = self.customer.post(f"/basket/add/{product.pk}/", {"quantity": self.chance.randint(1, 2)})
            assert done.status_code == 302, done.content[:500]
        address = {
            "first_name": "Ada", "last_name": "Byron", "line1": f"{self.chance.randint(1, 99)} Mill Road",
            "line4": "London", "postcode": "N1 9RT", "country": "GB",
        }  # fmt: skip
        for place, data in (
            ("/checkout/shipping-address/", address),
            ("/checkout/shipping-method/", None),
            ("/checkout/payment-method/", None),
            ("/checkout/preview/", {"action": "place_order"}),
        ):
            done = self.customer.get(place) if data is None else self.customer.post(place, data)
            assert done.status_code == 302, (place, done.status_code, done.content[-2_000:])
        assert done["Location"].endswith("/thank-you/"), done["Location"]
        order = get_model("order", "Order").objects.order_by("-pk")[0]
        return order.number

    def ship(self, number: str, status: str) -> int:
        """Change an order's status in the dashboard. Returns the response's code."""
        place = f"/dashboard/orders/{number}/"
        return self.staff.post(place, {"order_action": "change_order_status", "new_status": status}).status_code

    def note(self, number: str, text: str) -> int:
        """Write a note to an order in the dashboard."""
        place = f"/dashboard/orders/{number}/"
        data = {"order_action": "save_note", "message": text, "note_type": "Info"}
        return self.staff.post(place, data).status_code

    def review(self) -> int:
        """Review a product."""
        from oscar.core.loading import get_model

        product = self.chance.choice(list(get_model("catalogue", "Product").objects.all()[:20]))
        data = {"title": "Good", "score": self.chance.randint(1, 5), "body": "As described."}
        return self.customer.post(f"/catalogue/{product.slug}_{product.pk}/reviews/add/", data).status_code
