"""Makes a Django database whose models have histories of three packages: `make_histories.py FILE`.

It changes rows through models, and one row past the history, by a bulk update.
"""

import datetime
import sys

import django
from django.conf import settings
from django.core.management import call_command

PACKAGES = ["simple_history", "reversion", "auditlog"]


def main(path: str) -> None:
    """Make the tables and the changes."""
    settings.configure(
        SECRET_KEY="not-a-secret",
        USE_TZ=True,
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", *PACKAGES, "shop"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": path}},
    )
    django.setup()
    call_command("migrate", run_syncdb=True, verbosity=0)
    import reversion
    from shop.models import Article, Member, Page

    tea = Article.objects.create(title="Tea", price="1.50")
    tea.price = "2.00"
    tea.save()
    Article.objects.create(title="Cup", price="3").delete()
    Article.objects.filter(pk=tea.pk).update(title="Green tea")  # no history knows of this
    with reversion.create_revision():
        page = Page.objects.create(title="Home", price="1.50", at=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC))
    with reversion.create_revision():
        page.title = "Start"
        page.parent = page
        page.save()
    anna = Member.objects.create(name="Anna", level=1)
    anna.level, anna.active = 2, False
    anna.seen = datetime.datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=datetime.UTC)
    anna.save()
    Member.objects.create(name="Bert", boss=anna).delete()


main(sys.argv[1])
