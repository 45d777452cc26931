"""Cases: small calls of odd senders, and what is right of each. See README.md."""

import pytest

pytest.register_assert_rewrite("tests.cases.expected")
