"""Whom downloads trust: verified HTTPS alone, whatever torchtext does to the process."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.file_server import CONTENT, QUICK, FileServer, environment

from sentiment.data.download import DownloadError, check_address, download


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate of 127.0.0.1 with its key, in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    folder = tmp_path_factory.mktemp("certificate")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    certificate.write_text(certificate.read_text() + key.read_text())
    return certificate


@pytest.fixture
def https_server(server: FileServer, certificate: Path):
    secure_server = FileServer()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    secure_server.socket = context.wrap_socket(secure_server.socket, server_side=True)
    secure_server.scheme = "https"
    yield secure_server, certificate
    secure_server.close()


class TestTrust:
    @pytest.mark.parametrize(
        "url",
        [
            "http://nlp.stanford.edu/a.zip",
            "http://localhost.evil.org/a.zip",
            "http://127.0.0.1@evil.org/a.zip",
            "ftp://127.0.0.1/a.zip",
            "file:///etc/passwd",
            "https:///a.zip",
            "a.zip",
            "",
        ],
    )
    def test_addresses_that_prove_nothing_are_refused(self, target, url):
        with pytest.raises(ValueError, match="is not fetched"):
            download(url, target, patience=QUICK)
        assert not target.parent.exists()

    @pytest.mark.parametrize(
        "url", ["https://nlp.stanford.edu/a.zip", "http://localhost/a", "http://[::1]:80/a"]
    )
    def test_https_and_this_machine_are_fetched(self, url):
        check_address(url)

    def test_redirection_to_plain_http_is_refused(self, server, target):
        server.faults = ["http://nlp.stanford.edu/vectors.zip"]
        with pytest.raises(DownloadError, match=r"redirects, and http://nlp.* is not fetched"):
            download(server.url, target, patience=QUICK)

    def test_self_signed_certificate_is_refused(self, https_server, target, monkeypatch):
        server, _ = https_server
        with pytest.raises(DownloadError, match=r"no certificate to be trusted.*self-signed"):
            download(server.url, target, patience=QUICK)
        # As torchtext leaves the process once it has made vectors.
        monkeypatch.setattr(ssl, "_create_default_https_context", ssl._create_unverified_context)
        with pytest.raises(DownloadError, match=r"no certificate to be trusted.*self-signed"):
            download(server.url, target, patience=QUICK)
        assert server.requests == []
        assert not target.exists()

    def test_the_same_server_is_trusted_with_its_certificate(
        self, https_server, target, monkeypatch
    ):
        server, certificate = https_server
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        assert download(server.url, target, patience=QUICK).read_bytes() == CONTENT

    def test_what_is_no_https_at_all_may_pass(self, server, target):
        url = server.url.replace("http://", "https://")
        with pytest.raises(DownloadError, match="after 3 attempts"):
            download(url, target, patience=QUICK)

    def test_https_is_not_left_even_for_this_machine(
        self, https_server, server, target, monkeypatch
    ):
        secure_server, certificate = https_server
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        secure_server.faults = [server.url]
        with pytest.raises(DownloadError, match="which is not https"):
            download(secure_server.url, target, patience=QUICK)
        assert server.requests == []

    def test_a_wrong_bundle_of_certificates_is_named(self, https_server, target, monkeypatch):
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/absent.pem")
        with pytest.raises(DownloadError, match=r"/absent\.pem"):
            download(https_server[0].url, target, patience=QUICK)

    def test_importing_leaves_the_verifying_context_and_torchtext_vectors_do_not(self, tmp_path):
        vectors = tmp_path / "vectors.txt"
        vectors.write_text("good 1 2 3\nbad 4 5 6\n")
        code = (
            "import json, ssl, sys; import sentiment.data.download, sentiment.data.vectors; "
            "import torchtext.vocab; "
            "before = ssl._create_default_https_context is ssl.create_default_context; "
            "torchtext.vocab.Vectors(sys.argv[1], cache=sys.argv[2]); "
            "after = ssl._create_default_https_context is ssl.create_default_context; "
            "print(json.dumps([before, after]))"
        )
        arguments = [sys.executable, "-c", code, str(vectors), str(tmp_path)]
        result = subprocess.run(
            arguments, env=environment(), capture_output=True, text=True, check=True
        )
        assert json.loads(result.stdout) == [True, False]
