"""Addresses that no cluster can be joined at are refused at once."""

import http.server
import threading

import pytest

from lorasweep.errors import ResourceError
from lorasweep.lanes.cluster import connect, speaks_grpc


def test_an_address_at_which_nothing_listens_is_refused_at_once():
    with pytest.raises(ResourceError, match=r"no Ray cluster answers at .127\.0\.0\.1:1."):
        connect("127.0.0.1:1", "demo")


def test_an_address_of_ray_client_is_refused_before_anybody_knocks():
    with pytest.raises(ResourceError, match=r"--address: must be .* got 'ray://head:10001'"):
        connect("ray://head:10001", "sweep")


@pytest.fixture
def web_server():
    """Serve something else than Ray, and return the address."""
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_an_address_of_something_else_is_refused_at_once(web_server):
    with pytest.raises(ResourceError, match=rf"what listens at '{web_server}' is none"):
        connect(web_server, "demo")


@pytest.mark.ray
def test_a_cluster_is_told_from_a_dashboard(ray_cluster):
    answers = [
        speaks_grpc("127.0.0.1", int(address.rpartition(":")[2]))
        for address in (ray_cluster.address, ray_cluster.dashboard)
    ]
    assert answers == [True, False]
