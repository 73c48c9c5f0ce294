"""What holds for every test: no server but its own, and no timing that fails it."""

from collections.abc import Iterator

import hypothesis
import pytest

# A shared machine is slow at times, which is no fault of the code (so no deadline per
# example), and what failed must be told so that it can be repeated elsewhere.
hypothesis.settings.register_profile("multihost", deadline=None, print_blob=True)
hypothesis.settings.load_profile("multihost")


@pytest.fixture(scope="session", autouse=True)
def _no_server_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep tests away from a server, a key or a config file of whoever runs them."""
    nothing = tmp_path_factory.mktemp("no-server")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MULTIHOST_URL", raising=False)
        for name in ("KEY", "JOIN", "CA_FILE", "INSECURE"):
            patch.delenv(f"MULTIHOST_{name}", raising=False)
        patch.setenv("MULTIHOST_STATE", str(nothing / "state"))
        patch.setenv("MULTIHOST_CONFIG", str(nothing / "config.toml"))
        yield
