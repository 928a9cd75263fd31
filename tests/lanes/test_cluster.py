"""Addresses that no cluster can be joined at are refused at once."""

import pytest

from lorasweep.errors import ResourceError
from lorasweep.lanes.cluster import connect


def test_an_address_at_which_nothing_listens_is_refused_at_once():
    with pytest.raises(ResourceError, match=r"no Ray cluster answers at .127\.0\.0\.1:1."):
        connect("127.0.0.1:1", "demo")


def test_an_address_of_ray_client_is_refused_before_anybody_knocks():
    with pytest.raises(ResourceError, match=r"--address: must be .* got 'ray://head:10001'"):
        connect("ray://head:10001", "sweep")
