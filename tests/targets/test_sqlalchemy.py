"""The suite of read models over SQL databases that are not the log's, by SQLAlchemy and by psycopg."""

from tests.projections.test_failures import *
from tests.projections.test_failures import _no_poison as _no_poison
from tests.projections.test_generations import *
from tests.projections.test_leases import *
from tests.projections.test_rows import *
from tests.projections.test_values import *

# These are about the log's own file, and about leases shorter than a trip to a server.
del test_a_table_that_is_somebody_elses_is_left_alone  # noqa: F821
del test_a_filter_of_another_type_is_refused_by_name  # noqa: F821 (no target is asked)
del test_runners_that_fight_for_short_leases_skip_and_repeat_nothing  # noqa: F821
