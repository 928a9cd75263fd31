import json
from importlib import metadata

import lorasweep
from lorasweep.store import environment as environment_module
from lorasweep.store.environment import environment


def test_the_environment_is_plain_json_with_the_versions_in_use():
    found = environment()
    assert json.loads(json.dumps(found)) == found
    assert found["lorasweep"] == lorasweep.__version__
    assert found["packages"]["numpy"] == metadata.version("numpy")
    assert found["cpus"] >= 1


def test_a_package_that_is_not_installed_has_no_version(monkeypatch):
    monkeypatch.setattr(environment_module, "_PACKAGES", ["numpy", "no-such-package"])
    assert environment()["packages"] == {
        "numpy": metadata.version("numpy"),
        "no-such-package": None,
    }
