from pathlib import Path

import pytest

from tests.smtp.servers import Authority


@pytest.fixture(scope="session")
def certificates() -> Authority:
    return Authority()


@pytest.fixture
def authority(certificates: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Authority:
    """Return the authority that this test's applications trust."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca_pem_path(tmp_path)))
    return certificates
