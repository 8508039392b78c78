from textwrap import indent
from typing import Any

import pytest
from rules import document, findings, get, read_rules

from canary_mw.config.ambassador.module import UNSUPPORTED, ModuleConfig
from canary_mw.config.document import Document
from canary_mw.config.parser import RuleSet, parse
from canary_mw.exceptions import BadTarget, ClientError
from canary_mw.routing.table import RouteTable
from canary_mw.rules.cors import CorsPolicy
from canary_mw.rules.mapping import HeaderChange, Mapping, Retry
from canary_mw.rules.matchers import REGEX_MAX_SIZE
from canary_mw.rules.module import DEFAULT_SETTINGS, ModuleSettings
from canary_mw.rules.upstream import CircuitBreakers


def module(config: str = "", *, name: str = "ambassador", crd: bool = False) -> str:
    """A Module document; the config in YAML, one key to a line."""
    head = "---\napiVersion: getambassador.io/v3alpha1\nkind: Module\n"
    body = "config:\n" + indent(config, "  ") if config else "config: {}"
    if crd:
        return f"{head}metadata: {{name: {name}}}\nspec:\n{indent(body, '  ')}\n"
    return f"{head}name: {name}\n{body}\n"


def settings(config: str, **options: Any) -> ModuleSettings:
    rules = read_rules(module(config, **options))
    assert rules.diagnostics == ()
    return rules.shared.settings


def under(config: str, rule: str = "") -> Mapping:
    """The Mapping of a document under a Module."""
    rules = read_rules(module(config) + (rule or document()))
    assert not any(d.severity == "error" for d in rules.diagnostics)
    (only,) = rules.mappings
    return only


def test_without_a_module_nothing_is_set() -> None:
    assert read_rules(document()).shared.settings == DEFAULT_SETTINGS
    assert settings("") == DEFAULT_SETTINGS


@pytest.mark.parametrize("crd", [False, True])
def test_a_module_is_read_flat_and_as_a_crd(crd: bool) -> None:
    assert settings("server_name: edge", crd=crd).server_name == "edge"


@pytest.mark.parametrize(
    ("config", "attribute", "value"),
    [
        ("cluster_request_timeout_ms: 900", "timeout_ms", 900),
        ("retry_policy: {retry_on: 5xx}", "retry", Retry("5xx", 1)),
        ("preserve_external_request_id: false", "keep_request_id", False),
        ("defaults: {add_request_headers: {x-a: b}}", "add_request_headers", (HeaderChange(b"x-a", b"b"),)),
        ("defaults: {add_response_headers: {x-a: b}}", "add_response_headers", (HeaderChange(b"x-a", b"b"),)),
        ("defaults: {remove_request_headers: x-a}", "remove_request_headers", (b"x-a",)),
        ("defaults: {remove_response_headers: [x-a]}", "remove_response_headers", (b"x-a",)),
        ("defaults: {httpmapping: {remove_request_headers: x-a}}", "remove_request_headers", (b"x-a",)),
        (
            "defaults: {remove_request_headers: x-b, httpmapping: {remove_request_headers: x-a}}",
            "remove_request_headers",
            (b"x-a",),
        ),
        ("defaults: {stats_name: s}", "extras", {"stats_name": "s"}),
        ("add_linkerd_headers: true", "add_request_headers", (HeaderChange(b"l5d-dst-override", b"a:80", False),)),
        ("server_name: edge", "add_response_headers", (HeaderChange(b"server", b"edge", False),)),
        ("load_balancer: {policy: round_robin}", "extras", {"load_balancer": {"policy": "round_robin"}}),
        ("keepalive: {probes: 3}", "extras", {"keepalive": {"probes": 3}}),
        ("resolver: kubernetes-endpoint", "extras", {"resolver": "kubernetes-endpoint"}),
    ],
)
def test_a_key_is_the_default_of_every_mapping(config: str, attribute: str, value: object) -> None:
    for version in ("v2", "v3alpha1"):
        assert getattr(under(config, document(version=version)), attribute) == value


def test_the_limits_of_a_module_are_defaults_too() -> None:
    config = "cluster_idle_timeout_ms: 1000\ncluster_max_connection_lifetime_ms: 2000\n"
    config += "circuit_breakers: [{max_requests: 5}]\nretry_policy: {retry_on: 5xx, per_try_timeout: 3s}"
    options = under(config).options
    assert (options.keepalive_expiry, options.max_connection_lifetime, options.per_try_timeout) == (1.0, 2.0, 3.0)
    assert options.circuit_breakers == CircuitBreakers(max_requests=5)


def test_a_keepalive_that_envoy_does_not_take_is_an_error_of_its_module() -> None:
    rules = read_rules(module("keepalive: {probes: -1}") + document())
    assert [d.message for d in rules.diagnostics if d.severity == "error"] == [
        "Module ambassador: keepalive: probes -1 is negative"
    ]


def test_cors_of_a_module_takes_a_list_of_origins() -> None:
    policy = under("cors: {origins: [http://a.com, http://b.com], methods: GET}").cors
    assert isinstance(policy, CorsPolicy)
    assert policy.origins == {b"http://a.com", b"http://b.com"}


@pytest.mark.parametrize(
    ("config", "own", "attribute", "value"),
    [
        ("cluster_request_timeout_ms: 900", {"timeout_ms": 5}, "timeout_ms", 5),
        ("cluster_request_timeout_ms: 900", {"timeout_ms": 0}, "timeout_ms", 0),
        (
            "retry_policy: {retry_on: 5xx}",
            {"retry_policy": "{retry_on: gateway-error}"},
            "retry",
            Retry("gateway-error"),
        ),
        ("defaults: {add_request_headers: {x-a: b}}", {"add_request_headers": "{}"}, "add_request_headers", ()),
        ("defaults: {remove_request_headers: x-a}", {"remove_request_headers": "[]"}, "remove_request_headers", ()),
        ("add_linkerd_headers: true", {"add_linkerd_headers": "false"}, "add_request_headers", ()),
        (
            "server_name: edge",
            {"add_response_headers": "{x: y}"},
            "add_response_headers",
            (HeaderChange(b"server", b"edge", False), HeaderChange(b"x", b"y")),
        ),
    ],
)
def test_an_own_value_of_a_mapping_replaces_the_default_even_an_empty_one(
    config: str, own: dict[str, Any], attribute: str, value: object
) -> None:
    assert getattr(under(config, document(**own)), attribute) == value


def test_an_own_empty_cors_and_empty_circuit_breakers_replace_the_default() -> None:
    config = "cors: {origins: [a]}\ncircuit_breakers: [{max_requests: 5}]"
    rule = under(config, document(cors="{}", circuit_breakers="[]"))
    assert rule.cors is not None
    assert rule.cors.origins == frozenset()
    assert rule.options.circuit_breakers is None


def test_a_default_is_no_finding_about_the_mapping() -> None:
    rules = read_rules(module("load_balancer: {policy: round_robin}\nkeepalive: {probes: 1}") + document())
    assert findings(rules.diagnostics) == [("notice", "no-effect-yet", 7)]
    assert [d.mapping for d in rules.diagnostics] == [None]


def test_the_settings_of_a_module_give_a_request_policy() -> None:
    policy = settings(
        "merge_slashes: true\nreject_requests_with_escaped_slashes: true\n"
        "headers_with_underscores_action: DROP_HEADER\nmax_request_headers_kb: 1\nip_allow: [{peer: 127.0.0.1}]"
    ).request_policy
    assert policy is not None
    assert policy.admit(get("/a//b", {"x_y": "1"})).path == b"/a/b"
    for head in (get("/%2f"), get(client="10.0.0.1"), get(headers={"a": "b" * 1100})):
        with pytest.raises(ClientError):
            policy.admit(head)


def test_underscores_are_refused_where_the_module_says_so() -> None:
    policy = settings("headers_with_underscores_action: REJECT_REQUEST").request_policy
    assert policy is not None
    with pytest.raises(BadTarget):
        policy.admit(get(headers={"x_y": "1"}))


@pytest.mark.parametrize("key", ["ip_allow", "ip_deny"])
@pytest.mark.parametrize("kind", ["peer", "remote"])
def test_addresses_are_peers_or_remotes_with_or_without_a_length(key: str, kind: str) -> None:
    policy = settings(f"{key}: [{{{kind}: 10.0.0.0/8}}, {{{kind}: '::1'}}]").request_policy
    assert policy is not None
    assert policy.address_filter is not None
    for client in ("10.2.3.4", "::1"):
        assert policy.address_filter(client) is (key == "ip_allow")
    assert policy.address_filter("11.0.0.1") is (key == "ip_deny")


def test_the_other_keys_are_settings() -> None:
    found = settings("xff_num_trusted_hops: 2\npreserve_external_request_id: false\nregex_max_size: 300")
    assert (found.trusted_hops, found.keep_request_id, found.regex_max_size) == (2, False, 300)
    assert (DEFAULT_SETTINGS.trusted_hops, DEFAULT_SETTINGS.keep_request_id) == (0, True)
    assert DEFAULT_SETTINGS.regex_max_size == REGEX_MAX_SIZE


BIG = "(a|b){150}"
REGEXES: list[dict[str, Any]] = [
    {"prefix": f"/{BIG}", "prefix_regex": "true"},
    {"host": f"'{BIG}'", "host_regex": "true"},
    {"method": f"'{BIG}'", "method_regex": "true"},
    {"regex_headers": f"{{x: '{BIG}'}}"},
    {"regex_query_parameters": f"{{x: '{BIG}'}}"},
    {"regex_rewrite": f"{{pattern: '{BIG}'}}"},
    {"host_redirect": "true", "regex_redirect": f"{{pattern: '{BIG}'}}"},
]


@pytest.mark.parametrize("regex", REGEXES, ids=lambda regex: [*regex][-1])
def test_every_regex_of_a_rule_has_the_limit_of_the_module(regex: dict[str, Any]) -> None:
    rule = document(**regex)
    (refused,) = [d for d in read_rules(rule).diagnostics if d.severity == "error"]
    assert "the limit is 200 (shorten it, or raise regex_max_size in the Module)" in str(refused)
    raised = read_rules(module("regex_max_size: 2000") + rule)
    assert [m.name for m in raised.mappings] == ["a"]
    assert not any(d.severity == "error" for d in raised.diagnostics)
    lowered = read_rules(module("regex_max_size: 5") + document(regex_headers="{x: abcdef}"))
    assert lowered.mappings == ()


def test_a_limit_that_is_raised_later_makes_the_mapping_valid() -> None:
    rule = document(**REGEXES[0])
    before = read_rules(module() + rule)
    assert before.mappings == ()
    after = read_rules(module("regex_max_size: 2000") + rule, previous=before)
    assert [m.name for m in after.mappings] == ["a"]


@pytest.mark.parametrize("key", sorted(UNSUPPORTED))
def test_a_key_that_is_not_supported_gets_a_notice_by_its_name(key: str) -> None:
    rules = read_rules(module(f"server_name: edge\n{key}: {{a: 1}}") + document())
    assert findings(rules.diagnostics) == [("notice", "not-supported", 7)]
    assert rules.diagnostics[0].message == f"Module ambassador: {key} is not supported yet: ignored"
    assert rules.shared.settings.server_name == "edge"
    assert len(rules.mappings) == 1


@pytest.mark.parametrize("crd", [False, True])
@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("merge_slash", "merge_slashes"),
        ("server_names", "server_name"),
        ("strip_matching_hostport", "strip_matching_host_port"),
        ("xyzzy", None),
    ],
)
def test_an_unknown_key_is_reported_by_its_name_with_the_nearest_known_one(
    key: str, hint: str | None, crd: bool
) -> None:
    rules = read_rules(module(f"server_name: edge\n{key}: 1", crd=crd))
    assert findings(rules.diagnostics) == [("notice", "unknown-field", 8 if crd else 7)]
    assert f"unknown field {key} is ignored" in rules.diagnostics[0].message
    assert rules.diagnostics[0].hint == (hint and f"did you mean {hint}?")


def test_keys_inside_of_a_key_are_reported_too() -> None:
    rules = read_rules(module("defaults: {timeout_ms: 5, httpmapping: {prefix: /}}"))
    messages = [d.message for d in rules.diagnostics]
    assert any("unknown field defaults.timeout_ms is ignored" in message for message in messages)
    assert any("unknown field defaults.httpmapping.prefix is ignored" in message for message in messages)


def test_known_and_unsupported_keys_are_different_ones() -> None:
    assert not UNSUPPORTED & ModuleConfig.model_fields.keys()


WRONG = [
    ("cluster_request_timeout_ms: abc", "wrong-type", "cluster_request_timeout_ms must be a whole number"),
    ("cluster_request_timeout_ms: -1", "bad-value", "cluster_request_timeout_ms: -1 ms is negative"),
    ("cluster_idle_timeout_ms: -1", "bad-value", "cluster_idle_timeout_ms: -1 ms is negative"),
    ("cluster_max_connection_lifetime_ms: -1", "bad-value", "cluster_max_connection_lifetime_ms: -1 ms is negative"),
    ("cors: 5", "wrong-type", "cors must be a map"),
    ("cors: {origins: 'http://a.com,http://b.com'}", "wrong-type", "cors.origins must be a list, not the text"),
    ("cors: {origins: '*'}", "wrong-type", "cors.origins must be a list, not the text '*'"),
    ("load_balancer: {policy: ring_hash}", "bad-value", "load_balancer: ring_hash needs one of"),
    ('cors: {max_age: "1\\n2"}', "bad-value", 'cors: "1\\n2" holds a control character'),
    ("retry_policy: {num_retries: 1}", "wrong-type", "retry_policy.retry_on is missing"),
    ("retry_policy: {retry_on: 5xx, num_retries: -1}", "bad-value", "retry_policy: num_retries -1 is negative"),
    ("retry_policy: {retry_on: 5xx, per_try_timeout: abc}", "bad-value", "retry_policy: 'abc' is not a duration"),
    ("circuit_breakers: [{max_requests: -1}]", "bad-value", "circuit_breakers: max_requests -1 is negative"),
    (
        "defaults: {add_request_headers: {x: 5%}}",
        "bad-value",
        "defaults.add_request_headers: x: the value holds a bare %",
    ),
    ("defaults: {add_response_headers: {host: a}}", "bad-value", "the Host header cannot be added"),
    ("defaults: {remove_request_headers: 'a b'}", "bad-value", "'a b' is not a header name"),
    ("regex_max_size: 0", "wrong-type", "regex_max_size must be greater than or equal to 1, not the number 0"),
    ("regex_max_size: 10001", "wrong-type", "regex_max_size must be less than or equal to 10000"),
    ("merge_slashes: 'yes'", "wrong-type", "merge_slashes must be true or false"),
    ("headers_with_underscores_action: DROP", "wrong-type", "headers_with_underscores_action must be 'ALLOW'"),
    ("max_request_headers_kb: 0", "wrong-type", "max_request_headers_kb must be greater than or equal to 1"),
    ("xff_num_trusted_hops: -1", "wrong-type", "xff_num_trusted_hops must be greater than or equal to 0"),
    ('server_name: "a\\nb"', "bad-value", "server_name must be ASCII without control characters"),
    ("ip_allow: [{peer: abc}]", "bad-value", "'abc' is not an address or a network"),
    ("ip_deny: [{source: 10.0.0.0/8}]", "bad-value", "'source' is not peer or remote"),
    ("ip_allow: []\nip_deny: []", "bad-value", "ip_allow and ip_deny exclude each other"),
]


@pytest.mark.parametrize(("config", "code", "message"), WRONG, ids=[config for config, _, _ in WRONG])
def test_a_module_in_error_is_reported_once_and_hides_no_mapping(config: str, code: str, message: str) -> None:
    rules = read_rules(module("\n" + config) + document() + document("b"))
    (error,) = rules.diagnostics
    assert (error.severity, error.code, error.mapping) == ("error", code, None)
    assert error.line in (5, 6, 7)
    assert message in error.message
    assert [m.name for m in rules.mappings] == ["a", "b"]


def test_a_config_that_is_no_map_is_an_error() -> None:
    rules = read_rules(module().replace("config: {}", "config: [a]"))
    assert findings(rules.diagnostics) == [("error", "wrong-type", 5)]


def again(before: RuleSet, text: str) -> RuleSet:
    return read_rules(text, previous=before)


@pytest.mark.parametrize("config", ["cluster_request_timeout_ms: abc", "ip_allow: [{peer: abc}]"])
def test_a_module_in_error_keeps_its_last_good_version(config: str) -> None:
    rules = read_rules(module("cluster_request_timeout_ms: 900\nserver_name: edge") + document())
    for _ in range(2):
        rules = again(rules, module(config) + document() + document("b"))
        assert rules.shared.settings.server_name == "edge"
        assert {m.name: m.timeout_ms for m in rules.mappings} == {"a": 900, "b": 900}
    rules = again(rules, module("cluster_request_timeout_ms: 800") + document())
    assert rules.shared.settings.server_name is None
    assert rules.mappings[0].timeout_ms == 800


def test_a_module_that_is_gone_has_no_effect_unless_its_file_cannot_be_read() -> None:
    before = read_rules(module("cluster_request_timeout_ms: 900") + document())
    broken = again(before, "---\n{\n" + document())
    assert broken.mappings[0].timeout_ms == 900
    assert again(before, document()).mappings[0].timeout_ms is None


def test_a_changed_module_changes_the_mappings_and_an_unchanged_one_leaves_them() -> None:
    text = module("cluster_request_timeout_ms: 900\nip_deny: [{peer: 10.0.0.0/8}]")
    before = read_rules(text + document())
    same = again(before, text + document() + document("b"))
    assert same.mappings[0] is before.mappings[0]
    changed = again(before, module("cluster_request_timeout_ms: 700") + document())
    assert changed.mappings[0].timeout_ms == 700


def test_a_module_in_another_file_counts_for_all() -> None:
    rules = parse([Document(document(), "a.yaml"), Document(module("cluster_request_timeout_ms: 900"), "m.yaml")])
    assert rules.mappings[0].timeout_ms == 900


def test_another_module_has_no_effect_and_says_so() -> None:
    rules = read_rules(module("cluster_request_timeout_ms: 900", name="tls") + document())
    assert findings(rules.diagnostics) == [("notice", "kind-ignored", 2)]
    assert rules.mappings[0].timeout_ms is None


def test_a_module_for_another_ambassador_is_passed_over() -> None:
    text = module("cluster_request_timeout_ms: 900") + "ambassador_id: [other]\n" + document()
    assert read_rules(text).mappings[0].timeout_ms is None


def test_a_table_of_a_text_has_the_settings_of_its_module() -> None:
    table = RouteTable.from_yaml(module("merge_slashes: true") + document())
    assert table.settings.request_policy is table.request_policy
    assert table.request_policy is not None
