"""Where the search begins: inputs of the ordinary kind, and those that broke something once.

Of requests and answers, the first two bytes say how a target goes about the rest; see `plans` and `heads`.
"""

import json
from pathlib import Path

from .heads import RULES
from .texts import NEXT

CONFORMANCE = Path(__file__).parent.parent / "conformance"

_MAPPING = b"apiVersion: getambassador.io/v2\nkind: Mapping\nname: a\nprefix: /svc/\nservice: s:80\n"
_SERVICE = b"""\
apiVersion: v1
kind: Service
metadata:
  name: svc
  annotations:
    getambassador.io/config: |
      ---
      apiVersion: ambassador/v0
      kind: Mapping
      name: a
      prefix: /svc/
      service: svc  weight: 20
"""
_CONFIG_MAP = b"""\
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: ConfigMap
  data:
    rules.yaml: |
      kind: Mapping
      name: $NAME
      ${LINES}
"""
_TEXTS = [
    _MAPPING,
    b"---\n" + _MAPPING + b"---\n# nothing\n...\n" + _MAPPING,
    _MAPPING.replace(b"\n", b"\r\n"),
    _SERVICE,
    _CONFIG_MAP,
    b"\xef\xbb\xbf" + _MAPPING,
    b"a: &a [1, {b: 0x1F, c: 1_0.5e3, d: .inf, e: 2020-01-01, ? f}]\ng: *a\n",
    b"a: !!python/object:x 1\n<<: {b: 1}\n'a': 2\n",
    # YAML counts lines here that no editor shows.
    "# \u2028\u2029\x85\nkind: Mapping\nname: a\nprefix: \u2028/\nservice: s\n".encode(),
    b"a: !!bool x\nb: !!map [c]\n",
    b"a: 'not closed\n- b\n\tc: d\n",
    b"%TAG ! tag:x,2000:\n--- !a\nb: \xff\xfe\n",
]
_SETTINGS = b"\0\0\0\4\0\0\0\0\0"
_GRPC_HEAD = b"\0\0\x13\1\4\0\0\0\1\x88\x5f\x10application/grpc"
_GRPC_END = b"\0\0\x0f\1\5\0\0\0\1@\x0bgrpc-status\0010"
_GET = b"GET /svc/a?b=c HTTP/1.1\r\nHost: shop.example:80\r\nX-Blank: a b \t\r\n\r\n"
_SIZED = b"POST /svc/ HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\nhello"
_CHUNKED = (
    b"POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX-Trailer: t\r\n\r\n"
)
_UPGRADE = b"GET /ws HTTP/1.1\r\nHost: shop\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n"
_OLD = b"GET / HTTP/1.0\r\n\r\n"
_OK = b"HTTP/1.1 200 OK\r\n"
_ANSWER = _OK + b"Content-Length: 5\r\nX-Given: 1\r\n\r\nhello"

_BROWSER = (
    b"GET /svc/a?b=c HTTP/1.1\r\nHost: shop.example\r\nConnection: keep-alive\r\nUser-Agent: Mozilla/5.0 (X11)\r\n"
    b"Accept: text/html, */*;q=0.8\r\nCookie: a=b; c=d\r\nX-Request-Id: mine\r\n\r\n"
)
_NGINX = (
    _OK + b"Server: nginx\r\nDate: Fri, 27 Nov 2026 20:00:00 GMT\r\nContent-Type: text/html\r\nContent-Length: 5\r\n"
    b'Connection: keep-alive\r\nETag: "a"\r\n\r\nhello'
)

SEEDS: dict[str, list[bytes]] = {
    "yaml": _TEXTS,
    "documents": _TEXTS,
    "annotations": [
        b'a\\n\\tb\\u00e9\\x41\\101\\U0001F600\\"',
        b'"\nother="x"',
        _MAPPING.replace(b"\n", b"\\n"),
        b"\\ud800 \\xff \\400",
        b"\\U00110000",
        b"\\U6F000000",
    ],
    "source": [*_TEXTS[:3], b"\xff\xfe", b"\xef\xbb\xbf", b"a\n\xc3(\n", b"\xfe\xff\0a\0\n", b"\xff\xfea\0\n\0\n"],
    "rules": [
        *_TEXTS,
        RULES.encode(),
        # What Python makes no number of, and infinity.
        _MAPPING.replace(b"80", b"1" * 5000),
        _MAPPING + b"load_balancer: {policy: ring_hash, cookie: {name: a, ttl: " + b"9" * 400 + b"s}}",
        _MAPPING.replace(b"s:80", b'"s\\x7f"\nhost_redirect: true'),
        _MAPPING + NEXT.encode() + _MAPPING.replace(b"s:80", b"[broken"),
    ],
    "forwarding": [
        b"00GET /svc/a?b=c 1.1\nHost: shop:80\nX-Forwarded-For: 1.2.3.4\nConnection: close, X-Gone\nX-Gone: 1\nTE: x",
        b"10POST /join/../a%2e%2Fb 1.1\nhost: shop\ncontent-length: 3\nvia: 1.1 proxy, 1.1 canary-mw-other",
        b"20PUT http://h/re/a/b?c 1.1\nhost: [::1]:8080\ntransfer-encoding: chunked\norigin: http://a",
        b"50GET /headers/x 1.0\nx-given: a\tb\xff\nupgrade: websocket\nconnection: upgrade\ncookie: sticky=1",
        b"00OPTIONS * 1.1\nhost: shop",
        b"70OPTIONS /re/ 1.1\nhost: shop\norigin: http://a\naccess-control-request-method: PUT",
        # Its shadow got [-shadow::1].
        b"40GET /headers/ 1.1\nhost: [::1]:80",
        b"00POST / 1.1\nhost: a\ncontent-length: 3\ntransfer-encoding: chunked",
        b"00GET / 1.1\nhost: a\nx: \x01",
        b"00HEAD /away//%41 2\nx-request-id: 1\nx_forwarded_for: 2\nexpect: 100-continue",
        b"00DELETE /bare 1.1\nhost: shop\nx: a\rb\nhost: two",
    ],
    "answer_heads": [
        b"00\0d\nconnection: keep-alive, X-Private\nx-private: 1\nkeep-alive: timeout=5\nx-given: a\nx-powered-by: p",
        b"10\0h\ncontent-length: 3\ntransfer-encoding: chunked\nupgrade: h2c\nset-cookie: a\nset-cookie: b",
        b"00\1.\nlocation: /\nconnection: ,, close\naccess-control-allow-origin: x\nserver: s",
    ],
    "websockets": [
        b"00GET /headers/ws?a=b 1.1\nhost: shop\nupgrade: websocket\nconnection: Upgrade\nsec-websocket-key: a",
        b"50GET /headers/%20 1.1\nhost: shop:80\nsec-websocket-protocol: chat\norigin: http://a\ncookie: b",
        b"60GET /plain 1.1\nhost: shop\nsec-websocket-extensions: permessage-deflate\ncontent-length: 0",
    ],
    "header_values": [
        b"plain\n",
        b"100%% %REQ(x-given)% %REQ(:path?host):3%\na\rb",
        b"%RESP(x-given):2%%RESPONSE_CODE%%PROTOCOL%\nvalue",
        b"%START_TIME(%Y-%m-%d %H:%M:%S.%3f %s)%\n",
        b"%DOWNSTREAM_REMOTE_ADDRESS%\n",
        b"%REQ(x-given):" + b"1" * 5000 + b"%\nvalue",
        b"% %FOO% %REQ()%\n",
    ],
    "regex_rewrites": [
        b"/re/([^/]*)/?(.*)\n\\2//\\1\n/re/a/b",
        b"a*\n\\0-\\\\\nbaac",
        b"(\n\\1\nx",
        b"[[:alpha:]]{2,3}|\\pL|(?i)x\n\\9\nabc",
        b"(?P<n>.)$\n\nabc",
    ],
    "guard": [
        b"05" + _GET * 3,
        b"07" + _SIZED + _CHUNKED + _GET,
        b"11" + _UPGRADE + b"rest",
        b"03" + _UPGRADE + _GET,
        b"09" + _OLD + _GET,
        b"0:" + _GET.replace(b"HTTP/1.1", b"HTTP/2.0"),
        b"44" + _GET * 7,
        b"4?" + _SIZED * 4,
        b"2 " + _GET + b"POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"2 GET / HTTP/1.1\r\nHost: shop\r\nX-More: 1\r\n",
        b"2 " + _GET,
        b"2 " + _CHUNKED[:-4],
        b"06OPTIONS * HTTP/1.1\r\nHost: shop\r\n\r\n",
        b"02GET http://shop/a?b HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n" + _GET,
        b"02POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"02POST / HTTP/1.1\nHost: a\n\n",
        # Its body was taken for the next request.
        b"03" + _CHUNKED.replace(b"Host", b"Connection: Upgrade\r\nUpgrade: h2c\r\nHost") + _GET,
        b"03" + _SIZED.replace(b"Host", b"Connection: Upgrade\r\nUpgrade: h2c\r\nHost"),
        b"02POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
    ],
    "grpc_answers": [
        b"\xff" + _SETTINGS + _GRPC_HEAD + b"\0\0\6\0\0\0\0\0\1\0\0\0\0\1x" + _GRPC_END,
        b"\2" + _SETTINGS + _GRPC_HEAD + b"\0\0\5\0\0\0\0\0\1\0\0\0\0\0" + _GRPC_END,
        b"\xff" + _SETTINGS + b"\0\0\x08\7\0\0\0\0\0\0\0\0\1\0\0\0\0" + _GRPC_HEAD + _GRPC_END,
        b"\xff" + _SETTINGS + b"\0\0\4\3\0\0\0\0\1\0\0\0\7" + b"\0\0\4\x08\0\0\0\0\0\0\1\0\0",
        b"\xff" + _SETTINGS + b"\0\0\x08\6\0\0\0\0\x0012345678" * 50,
        # h2 takes it for the end of everything, and would wait for 16 MiB.
        b"\xff\xff\xff\xff\0\0\0\0\0\1",
        b"\xffHTTP/1.1 400 Bad Request\r\n\r\n",
    ],
    "grpc_messages": [
        b"\n\2\x08\7\x12\x12\n\3\x08\x91\3\x12\x0b\n\t\n\3x-a\x12\2b!",
        b"\x1a\x10\n\x0e\n\6x-user\x12\4\n\2\x10\1",
        b"\x08\2\x1a\6\n\1a\x12\1b*\1x",
        b"\n\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\1",
        b"\x12\4\x1a\2\xc3\x28",
    ],
    "plain_requests": [
        _BROWSER,
        _BROWSER.replace(b"/svc/a?b=c", b"/svc/%7Euser/../a.b%2F?b=%00"),
        _BROWSER.replace(b"\r\nX-Request", b"\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Host: a\r\nX-Request"),
        _GET.replace(b" \t", b""),
        b"OPTIONS /svc/ HTTP/1.1\r\nHost: [::1]:80\r\nOrigin: null\r\n\r\n",
        b"DELETE /svc?a HTTP/1.1\r\nhost: shop\r\nx-real-ip: 1\r\nforwarded: for=a\r\n\r\n",
        # Two holes of an early version.
        b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
    "plain_responses": [
        _NGINX,
        _NGINX.replace(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n").replace(
            b"hello", b"5\r\nhello\r\n0\r\n\r\n"
        ),
        _ANSWER,
        _OK + b"content-length: 0\r\nset-cookie: a=b\r\nset-cookie: c=d\r\nx_a: \xe4\r\n\r\n",
        _OK + b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
        b"HTTP/1.1 404\r\ncontent-length: 2\r\n\r\nno",
        b"HTTP/1.1 200OK\r\ncontent-length: 0\r\n\r\n",
    ],
    "upstream_answers": [
        b"05" + _ANSWER,
        b"15" + _OK + b"Content-Length: 5\r\n\r\n",
        b"05" + _ANSWER + _ANSWER,
        # The second one in a segment of its own.
        b"07" + _ANSWER + _ANSWER,
        b"05" + _OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"05" + _OK + b"Connection: close\r\n\r\nuntil the end",
        b"05HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 100\r\n\r\n" + _ANSWER,
        b"03" + _OK + b"Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX-Trailer: t\r\n\r\n",
        b"05HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
        b"05HTTP/1.0 304 Not Modified\r\nConnection: keep-alive\r\n\r\n",
        b"05HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"05" + _OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"2 " + _OK + b"X-More: 1\r\n",
        b"2 " + _OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"2 " + _OK + b"\r\nuntil the end\n",
        b"2 HTTP/1.1 100 Continue\r\n\r\n",
    ],
}
# On every path through the proxy.
SEEDS["whole_proxy"] = [
    flags + seed[1:] for seed in SEEDS["guard"] if not seed.startswith(b"2") for flags in (b"0", b"5", b"8", b":")
]


def all_seeds(name: str) -> list[bytes]:
    """The seeds of a target; for those that read rules also all rules of the conformance cases."""
    if name not in ("documents", "rules"):
        return SEEDS[name]
    cases = [case for file in sorted(CONFORMANCE.glob("*.json")) for case in json.loads(file.read_text("utf-8"))]
    return [*SEEDS[name], *(case["rules"].encode() for case in cases)]
