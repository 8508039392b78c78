"""What is worth to be put into an input: bits of the languages that the targets read, between bars."""

_TEXTS = (
    "apiVersion: |kind: |Mapping|name: a|prefix: /svc/|service: |getambassador.io/v3alpha1|ambassador/v1"
    "|Module|ambassador|config: |metadata: |spec: |annotations: |getambassador.io/config: |data: |items: "
    "|Service|ConfigMap|List|weight: 20|headers: {|regex_headers: |host: |hostname: |method: "
    "|prefix_regex: true|rewrite: |regex_rewrite: |pattern: |substitution: |add_request_headers: "
    "|remove_request_headers: |cors: |retry_policy: |per_try_timeout: |load_balancer: |cookie: |ttl: "
    "|circuit_breakers: |health_checks: |outlier_detection: |shadow: true|host_redirect: true|precedence: 1"
    "|timeout_ms: |labels: |metadata_labels: |namespace: |---\n|...\n|\n  |\n- |: |? |&a |*a|!!|!<|%TAG "
    "|<<: |[|]|{|}|'|\"|'|\\|>-\n|$NAME|${LINES}|#|,|0x_|1:1:1|.nan|~|null|true|\ufeff|\r\n|\t|\x85|\u2028"
)
_WIRE = (
    "GET |POST |HEAD |OPTIONS |CONNECT |PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n|HTTP/1.1\r\n|HTTP/1.0\r\n"
    "|Host: a\r\n|Content-Length: 3\r\n|Content-Length: +3\r\n|Content-Length: 3, 3\r\n"
    "|Transfer-Encoding: chunked\r\n|Transfer-Encoding: identity\r\n|Transfer-Encoding: gzip, chunked\r\n"
    "|Transfer-Encoding : chunked\r\n|Connection: close\r\n|Connection: Upgrade\r\n|Upgrade: websocket\r\n"
    "|Expect: 100-continue\r\n|Connection: keep-alive\r\n|X: y\r\n| folded\r\n|\r\n|\n|\r|\0|\t| |:|;|,"
    "|0\r\n\r\n|3\r\nabc\r\n|5;a=b\r\nhello\r\n|ffffffffffffffff\r\n|0x3\r\n|HTTP/1.1 200 OK\r\n"
    "|HTTP/1.1 100 Continue\r\n\r\n|HTTP/1.1 204 No\r\n|HTTP/1.1 304 Not\r\n|HTTP/1.0 200 \r\n|http://a/|*"
    "|/a%2e%00?b#c|ÿ|\x80"
)
_HEADS = (
    "GET /|POST /join/|/re/|/headers/|/away/|/bare/| 1.1\n| 1.0\n| 2\n|host: a\n|host: [::1]:80\n|host:\n"
    "|content-length: 3\n|transfer-encoding: chunked\n|connection: x-private\n"
    "|connection: close, te, host, via\n|x-private: 1\n|te: trailers\n|upgrade: websocket\n"
    "|connection: upgrade\n|via: 1.1 canary-mw-fuzz\n|via: a\n|x-forwarded-for: 1\n|x-forwarded-host: b\n"
    "|x_forwarded_for: c\n|forwarded: for=d\n|x-given: |cookie: sticky=|origin: http://a\n"
    "|access-control-request-method: PUT\n|expect: 100-continue\n|trailer: x\n|keep-alive: 1\n"
    "|http2-settings: x\n|proxy-connection: a\n|%2e%2e/|../|./|//|\\|%00|%2F|%25|?|#|http://h/|\r|\0|\x7f"
    "|ÿ|:|,| |\t|\n"
)
_VALUES = (
    "%|%%|%REQ(|%RESP(|%START_TIME(|)%|:3%|:99999999999%|x-given|:path|:method|:authority|?|%PROTOCOL%"
    "|%RESPONSE_CODE%|%3f|%s|%Y|%%Y|%DOWNSTREAM_REMOTE_ADDRESS%|\n|\r|\0|é|(|)|[^/]|.*|(.*)|a+|{2,300}"
    "|\\1|\\0|\\\\|\\9|(?i)|(?P<a>|[[:alpha:]]|\\pN|^|$|\\b|\\C|\\Q|^$|١"
)

_FRAMES = (
    "\0\0\0\4\0\0\0\0\0|\0\0\0\4\1\0\0\0\0|\0\0\x14\1\4\0\0\0\1\x88_\x10application/grpc|\0\0\6\0\0\0\0\0\1\0\0\0\0\1x"
    "|\0\0\x10\1\5\0\0\0\1@\x0bgrpc-status\0010|\0\0\x08\7\0\0\0\0\0\0\0\0\1\0\0\0\0|\0\0\4\3\0\0\0\0\1\0\0\0\7"
    "|\0\0\4\x08\0\0\0\0\0\0\1\0\0|\0\0\x08\6\0\0\0\0\x0012345678|\0\0\0\0\1\0\0\0\1|\0\0\6\4\0\0\0\0\0\0\3\0\0\0\1"
    "|\0\0\6\4\0\0\0\0\0\0\4\0\0\0\0|\xff\xff\xff|\0\0\1\0\x08\0\0\0\1\xff|\x08\7|\x12\4|\x1a\6\n\4|\n\2\x08\0|\0\0\0\0\0"
)

_KINDS = {
    **dict.fromkeys(("yaml", "documents", "annotations", "source", "rules"), _TEXTS),
    **dict.fromkeys(("forwarding", "answer_heads", "websockets"), _HEADS),
    **dict.fromkeys(("header_values", "regex_rewrites"), _VALUES),
    **dict.fromkeys(("grpc_answers", "grpc_messages"), _FRAMES),
    **dict.fromkeys(("guard", "upstream_answers", "whole_proxy", "plain_requests", "plain_responses"), _WIRE),
}


def reads_rules(name: str) -> bool:
    """Whether a target takes texts as an operator writes them."""
    return _KINDS[name] is _TEXTS


def words_of(name: str) -> list[bytes]:
    """The words of a target; texts and values are UTF-8, what goes over a wire is Latin-1."""
    words = _KINDS[name]
    encoding = "utf-8" if words in (_TEXTS, _VALUES) else "latin-1"
    return [word.encode(encoding) for word in (*words.split("|"), "|") if word]
