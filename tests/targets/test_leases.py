"""Leases by the target's clock, in every target."""

from tests.projections import test_leases as leases

test_a_worker_that_always_has_work_keeps_its_lease = leases.test_a_worker_that_always_has_work_keeps_its_lease
test_no_effect_is_begun_when_the_lease_may_have_ended = leases.test_no_effect_is_begun_when_the_lease_may_have_ended
