"""One small atlas for all tests."""

import pytest

from polyattn.study.atlas import build


@pytest.fixture(scope="session")
def atlas():
    return build(["nl", "e_nl", "poly_nl", "cp_nl", "pi_net_ccp"], processes=1)
