"""Downloads that were stopped go on, from a server that stands in for the Hub."""

import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from napari_hrdv2.core.backbones.files import hub
from napari_hrdv2.core.backbones.files import resume as _resume
from napari_hrdv2.core.backbones.files.resume import part_of
from napari_hrdv2.core.errors import Cancelled, WeightsError

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
COMMIT = "a" * 40


class Hub(ThreadingHTTPServer):
    """One file, as the Hub hands it out."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.etag = CONTENT, SHA256
        self.takes_ranges, self.breaks_after, self.status = True, None, None
        self.asked = []  # (first byte, bytes sent) of each GET

    def handle_error(self, request, client_address):
        """Say nothing of clients that hang up."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        """Be quiet."""

    def do_HEAD(self):
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{self.server.etag}"')
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()

    def do_GET(self):
        server, content = self.server, self.server.content
        is_file = self.path.endswith("/model.safetensors")
        if server.status or not is_file:  # the client asks for other things too
            server.asked += [(None, 0)] * is_file  # before the client may go on
            self.send_response(server.status or 404)
            self.send_header("Content-Length", "0")
            self.send_header("Connection", "close")
            self.end_headers()
            return
        asked = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked and server.takes_ranges else 0
        self.send_response(206 if asked and server.takes_ranges else 200)
        if start:
            last = len(content) - 1
            told = f"bytes {start}-{last}/{len(content)}"
            self.send_header("Content-Range", told)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("Connection", "close")
        stop = len(content)
        if server.breaks_after is not None:
            stop = min(stop, start + server.breaks_after)
        server.asked.append((start, stop - start))
        self.end_headers()
        self.wfile.write(content[start:stop])
        self.close_connection = True


@pytest.fixture
def server(monkeypatch, tmp_path):
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template
    )
    monkeypatch.setattr(
        "huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE",
        template,
        raising=False,
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(_resume, "LEAST_BYTES", 1000)
    monkeypatch.setattr(_resume, "CHUNK", 10_000)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def part(tmp_path):
    blobs = tmp_path / "models--lab--tiny" / "blobs"
    blobs.mkdir(parents=True)
    return part_of(blobs / SHA256)


def fetch(**options):
    return hub.fetch("lab/tiny", "model.safetensors", revision=None, **options)


def test_a_download_comes_into_the_cache_of_the_hub_s_client(server):
    reports = []
    found = fetch(progress=lambda *counts: reports.append(counts))
    assert found.read_bytes() == CONTENT
    assert found.parent.name == COMMIT
    assert reports[0] == (0, 300_000)
    assert reports[-1] == (300_000, 300_000)
    assert len(server.asked) == 1
    assert fetch() == found
    assert len(server.asked) == 1


def test_a_download_that_was_stopped_goes_on_where_it_stopped(server, part):
    def stop(done, total):
        if done >= 120_000:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        fetch(progress=stop)
    kept = part.stat().st_size
    assert 120_000 <= kept < 300_000
    reports = []
    found = fetch(progress=lambda *counts: reports.append(counts))
    assert found.read_bytes() == CONTENT
    assert server.asked[-1][0] == kept
    assert reports[0] == (kept, 300_000)
    assert not part.exists()


def test_it_goes_on_where_a_connection_breaks(server):
    server.breaks_after = 70_000
    assert fetch().read_bytes() == CONTENT
    starts = [start for start, _ in server.asked]
    assert starts[0] == 0
    assert starts == sorted(starts)
    assert len(starts) >= 300_000 / 70_000


def test_a_connection_that_never_brings_anything_is_given_up(server):
    server.breaks_after = 0
    with pytest.raises(WeightsError, match="of the Hub repository lab/tiny was not"):
        fetch()
    assert len(server.asked) == 5


def test_a_server_that_sends_no_parts_sends_the_whole_again(server, part):
    server.takes_ranges = False
    part.write_bytes(CONTENT[:5000])
    assert fetch().read_bytes() == CONTENT


@pytest.mark.parametrize("start", [b"", b"x" * 5000, b"x" * 300_000, b"x" * 300_001])
def test_parts_that_are_damaged_are_told_by_their_checksum(server, part, start):
    part.write_bytes(start)
    if start and len(start) <= 300_000:
        with pytest.raises(WeightsError, match="its sha256 is not that of the Hub"):
            fetch()
        assert not part.exists()
    assert fetch().read_bytes() == CONTENT


def test_a_part_of_an_older_file_is_not_continued(server, part):
    part.write_bytes(CONTENT[:5000])
    server.content = CONTENT[::-1]
    server.etag = hashlib.sha256(server.content).hexdigest()
    assert fetch().read_bytes() == CONTENT[::-1]
    assert server.asked[0][0] == 0


def test_a_server_that_refuses_a_part_is_asked_for_the_whole(server, part, monkeypatch):
    part.write_bytes(CONTENT[:5000])
    answered = []

    def refuse_once(handler, do_get=Handler.do_GET):
        server.status = 416 if not answered else None
        answered.append(1)
        do_get(handler)

    monkeypatch.setattr(Handler, "do_GET", refuse_once)
    assert fetch().read_bytes() == CONTENT


def test_a_refusal_is_not_asked_for_again(server, monkeypatch):
    server.status = 403
    with pytest.raises(WeightsError):
        fetch()
    assert len(server.asked) == 1


def test_small_files_and_files_without_a_checksum_are_the_client_s_work(server, part):
    server.etag = "0123456789"  # of git
    assert fetch().read_bytes() == CONTENT
    assert not part.exists()


def test_where_there_are_no_links_one_copy_is_kept(server, monkeypatch, tmp_path):
    monkeypatch.setattr(
        "huggingface_hub.file_download.are_symlinks_supported", lambda *a, **k: False
    )
    found = fetch()
    assert found.read_bytes() == CONTENT
    assert not found.is_symlink()
    assert not (tmp_path / "models--lab--tiny" / "blobs" / SHA256).exists()
