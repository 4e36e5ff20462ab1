"""The models: each has a history of another package.

Knows: Django, the packages. Does not know: which changes are made.
"""

import reversion
from auditlog.registry import auditlog
from django.db import models
from simple_history.models import HistoricalRecords


class Article(models.Model):
    """Its history is kept by django-simple-history."""

    title = models.CharField(max_length=50)
    price = models.DecimalField(max_digits=8, decimal_places=2)
    history = HistoricalRecords()


@reversion.register()
class Page(models.Model):
    """Its history is kept by django-reversion."""

    title = models.CharField(max_length=50)
    price = models.DecimalField(max_digits=8, decimal_places=2, null=True)
    at = models.DateTimeField(null=True)
    parent = models.ForeignKey("self", null=True, on_delete=models.CASCADE)


class Member(models.Model):
    """Its history is kept by django-auditlog."""

    name = models.CharField(max_length=50)
    level = models.IntegerField(default=0)
    active = models.BooleanField(default=True)
    seen = models.DateTimeField(null=True)
    boss = models.ForeignKey("self", null=True, on_delete=models.CASCADE)


auditlog.register(Member)
