"""The live page's server: what it answers, and that no request hangs it, ends it, or comes back as markup."""

import json
import socket
import time

import pytest
from _hostile import KINDS, asked, generated, post
from hostile import alive, exchange, fault, run

from polyattn import catalog

NL = str(catalog.nl())
SLOW = "x[N];y[a]=" + "*".join(["(x[a]+v[a]+u[a])"] * 300)


def answer(port, job, request, *headers, host=None):
    body = json.dumps(request).encode()
    found = exchange(port, post(job, body, host or f"127.0.0.1:{port}", *headers), 60)
    assert found is not None
    head, _, content = found.partition(b"\r\n\r\n")
    return int(head[9:12]), head.decode().lower(), content.decode()


def good(port, job, request):
    status, _, content = answer(port, job, request)
    assert status == 200, content
    return json.loads(content)


def get(port, path, host=None):
    found = exchange(
        port, f"GET {path} HTTP/1.1\r\nHost: {host or f'127.0.0.1:{port}'}\r\nConnection: close\r\n\r\n".encode(), 30
    )
    assert found is not None
    head, _, content = found.partition(b"\r\n\r\n")
    return int(head[9:12]), head.decode().lower(), content.decode()


def test_the_page_and_its_files_carry_their_headers(port):
    for path in ("/", "/static/page.css", "/static/theme.js", "/static/page.js", "/static/live.css", "/static/live.js"):
        status, head, content = get(port, path)
        assert status == 200
        assert content
        assert "content-security-policy: default-src 'none'" in head
        assert "unsafe" not in head
        assert "x-content-type-options: nosniff" in head


def test_the_page_has_no_script_inside(port):
    _, _, content = get(port, "/")
    scripts = content.split("<script")[1:]
    assert [s.partition(">")[0] for s in scripts if " src=" not in s.partition(">")[0]] == [
        ' type="application/json" id="examples"'
    ]
    assert " onclick" not in content
    assert " style=" not in content


def test_a_wrong_text_is_answered_with_its_place(port):
    found = good(port, "check", {"text": "x[N,C]\ny[a,b] = x[a,"})
    assert found["error"]["line"] == 2
    assert found["error"]["column"] > 10
    assert good(port, "check", {"text": NL}) == {"good": True}


def test_a_layer_is_a_part_of_the_page(port):
    found = good(port, "layer", {"text": NL, "sizes": {"N": "49", "C": "8", "B": "2"}})
    assert "<math" in found["html"]
    assert "N = 49, C = 8" in found["html"]


@pytest.mark.parametrize(("name", "status"), [("nl", "equal"), ("poly_nl", "different"), ("tesa", "not comparable")])
def test_verdicts_against_the_catalogue(port, name, status):
    found = good(port, "proof", {"text": NL, "against": name})
    assert found["status"] == status
    assert f'<span class="badge">{status}</span> {name}' in found["html"]


def test_a_computation_that_takes_too_long_is_ended(hasty_port):
    found = good(hasty_port, "layer", {"text": SLOW})
    assert found["error"]["reason"] == "this takes more than 1 seconds"
    assert alive(hasty_port)


@pytest.mark.parametrize("host", ["example.org", "127.0.0.1", "localhost:1", "127.0.0.1.example.org:80", ""])
def test_other_hosts_names_are_refused(port, host):
    status, _, content = get(port, "/", host=host or " ")
    assert status in (400, 403)
    assert "<html" not in content


def test_localhost_is_this_host(port):
    assert get(port, "/", host=f"localhost:{port}")[0] == 200


@pytest.mark.parametrize("origin", ["http://example.org", "null", "https://localhost"])
def test_other_origins_are_refused(port, origin):
    assert answer(port, "check", {"text": NL}, f"Origin: {origin}")[0] == 403
    assert answer(port, "check", {"text": NL}, f"Origin: http://127.0.0.1:{port}")[0] == 200


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{}", "text/plain", 415),
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"{}", "application/json", 400),
        (b'{"text": "' + b"a" * 70_000 + b'"}', "application/json", 413),
        (b"[" * 50_000, "application/json", 400),
    ],
    ids=["kind", "half", "list", "empty", "large", "deep"],
)
def test_bad_requests(port, body, kind, status):
    found = exchange(port, post("check", body, f"127.0.0.1:{port}", kind=kind), 30)
    assert found is not None
    assert int(found[9:12]) == status


def test_a_text_of_too_many_characters_is_refused_with_the_limit(port):
    assert "8,000" in good(port, "check", {"text": "#" * 8_001})["error"]["reason"]


def test_half_a_request_is_not_waited_for(port):
    head = f"POST /check HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    for half in ("GET / HT", head, head + "Content-Length: 9\r\n\r\n{"):
        assert exchange(port, half.encode(), 20) is not None


def test_the_check_of_answers_can_fail():
    assert fault(None) == "hangs"
    assert fault(b"HTTP/1.1 500 x\r\n\r\n") == "status 500"
    assert (
        fault(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n<script>alert('hostile')</script>")
        == "reflects markup"
    )
    page = json.dumps({"html": "<img src=x onerror=alert(1)>"}).encode()
    assert fault(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n" + page) == "reflects markup"
    assert fault(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{}") == ""


def test_hostile_requests_neither_hang_nor_crash_nor_come_back_raw(hasty_port):
    requests = generated(100, 1, f"127.0.0.1:{hasty_port}")
    assert {r.kind for r in requests} == set(KINDS)
    found = run(hasty_port, requests, 90)
    assert found["faults"] == []
    assert alive(hasty_port)


def test_one_that_leaves_does_not_keep_a_worker(patient_port):
    slow = asked("layer", f"127.0.0.1:{patient_port}", "x[N];y[a]=" + "*".join(["(x[a]+v[a]+u[a])"] * 1150))
    for _ in range(3):  # more than there are workers, each of which would take minutes
        with socket.create_connection(("127.0.0.1", patient_port)) as connection:
            connection.sendall(slow)
            time.sleep(0.2)
    assert alive(patient_port)  # within two minutes
