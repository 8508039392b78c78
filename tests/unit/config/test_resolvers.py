"""`resolver`, and the documents that it names: whose endpoints a Mapping asks for."""

import pytest
from rules import document, findings, one, read_rules

from canary_mw.config.document import APIObject, Document
from canary_mw.config.parser import parse
from canary_mw.rules.upstream import DEFAULT_OPTIONS, ConsulAgent, ConsulService, KubernetesService, Origin


def resolver(name: str, kind: str = "KubernetesEndpointResolver", **attributes: str) -> str:
    lines = [f"{key}: {value}" for key, value in {"name": name, **attributes}.items()]
    return "\n".join(["---", "apiVersion: getambassador.io/v2", f"kind: {kind}", *lines, ""])


def module(name: str) -> str:
    return f"---\napiVersion: getambassador.io/v2\nkind: Module\nname: ambassador\nconfig: {{resolver: {name}}}\n"


def asked(text: str, **options: object) -> KubernetesService | None:
    """The Service whose endpoints the Mapping of a text asks for."""
    endpoints = one(text, **options).options.endpoints
    return endpoints.kubernetes_service if endpoints else None


GRAY = KubernetesService("gray", "", 80)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (document("gray", resolver="endpoint"), GRAY),
        (document("gray", resolver="kubernetes-endpoint"), GRAY),
        (document("gray", resolver="kubernetes-service"), None),
        (document("gray"), None),
        (document("gray", resolver="mine") + resolver("mine"), GRAY),
        (document("gray", resolver="mine") + resolver("mine", "KubernetesServiceResolver"), None),
        # Either name of the built-in one may be taken by a document; the other one stands for the same.
        (document("gray", resolver="endpoint") + resolver("kubernetes-endpoint", "KubernetesServiceResolver"), None),
        (document("gray", resolver="kubernetes-endpoint") + resolver("endpoint", "KubernetesServiceResolver"), None),
        (document("gray", resolver="kubernetes-service") + resolver("kubernetes-service"), GRAY),
        # The Module's is that of every Mapping without one.
        (module("endpoint") + document("gray"), GRAY),
        (module("mine") + document("gray") + resolver("mine"), GRAY),
        (module("endpoint") + document("gray", resolver="kubernetes-service"), None),
        (module("kubernetes-service") + document("gray", resolver="endpoint"), GRAY),
    ],
)
def test_a_resolver_says_whether_endpoints_are_asked_for(text: str, expected: KubernetesService | None) -> None:
    assert asked(text) == expected
    assert read_rules(text).diagnostics == ()


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        ("gray:8080", KubernetesService("gray", "", 8080)),
        ("https://gray", KubernetesService("gray", "", 443)),
        ("GRAY.Shop", KubernetesService("gray", "shop", 80)),
        ("gray.shop.svc", KubernetesService("gray", "shop", 80)),
        ("gray.shop.svc.cluster.local:81", KubernetesService("gray", "shop", 81)),
        ("gray.shop.svc.cluster.local.", KubernetesService("gray", "shop", 80)),
        # Other names of DNS, and addresses, are what they are.
        ("api.shop.example.com", None),
        ("example.com.", None),
        ("10.1.0.1:80", None),
        ('"[fd00::1]:80"', None),
        ("localhost:80", None),
        ("gray.shop_1", None),
        ("gray,b", None),
        ("-gray", None),
        ("gray)", None),
        ("x" * 64, None),
    ],
)
def test_only_the_name_of_a_service_is_asked_for(service: str, expected: KubernetesService | None) -> None:
    assert asked(document("gray", resolver="endpoint", service=service)) == expected


@pytest.mark.parametrize(
    ("text", "namespace"),
    [
        (document("gray", resolver="endpoint"), ""),
        (document("gray", resolver="endpoint", namespace="default"), "default"),
        (document("gray", resolver="endpoint", namespace="shop"), "shop"),
        (document("gray", resolver="endpoint", namespace="shop", service="gray.other"), "other"),
    ],
)
def test_a_service_without_a_namespace_is_one_of_its_mappings_namespace(text: str, namespace: str) -> None:
    """A file may leave it out: whoever applies it chooses it, and here that is the namespace of this process."""
    assert asked(text) == KubernetesService("gray", namespace, 80)


def test_an_object_of_an_api_always_has_a_namespace() -> None:
    holder = APIObject(kind="Service", name="gray", namespace="default", annotated=True)
    text = Document(document("gray", resolver="endpoint"), "k8s://default/Service/gray", api_object=holder)
    (mapping,) = parse([text]).mappings
    assert mapping.options.endpoints is not None
    assert mapping.options.endpoints.kubernetes_service == KubernetesService("gray", "default", 80)


def test_a_redirect_has_no_endpoints() -> None:
    assert one(document("gray", resolver="endpoint", host_redirect="true")).options is DEFAULT_OPTIONS


def consul(text: str) -> ConsulService | None:
    """The service of Consul whose instances the Mapping of a text asks for."""
    endpoints = one(text).options.endpoints
    return endpoints.consul_service if endpoints else None


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (None, Origin("", "127.0.0.1", 8500)),
        ("consul:8501", Origin("", "consul", 8501)),
        ("http://Consul.Example", Origin("http", "consul.example", 8500)),
        ("https://10.0.0.1:8501/", Origin("https", "10.0.0.1", 8501)),
        ("'[::1]:8500'", Origin("", "::1", 8500)),
    ],
)
def test_a_consul_resolver_says_where_instances_are_asked_for(address: str | None, expected: Origin) -> None:
    given = {} if address is None else {"address": address}
    text = document("gray", resolver="c") + resolver("c", "ConsulResolver", datacenter="dc1", **given)
    assert consul(text) == ConsulService(ConsulAgent(expected, "dc1"), "gray")
    assert asked(text) is None
    assert read_rules(text).diagnostics == ()


@pytest.mark.parametrize("name", ["consul", "consul-endpoint"])
def test_either_usual_name_of_a_consul_resolver_stands_for_the_other(name: str) -> None:
    for asked_for in ("consul", "consul-endpoint"):
        text = document("gray", resolver=asked_for) + resolver(name, "ConsulResolver", datacenter="dc1")
        assert consul(text) is not None


def test_a_name_in_consul_has_no_namespace_no_dot_and_no_port() -> None:
    of_consul = resolver("c", "ConsulResolver", datacenter="dc1")
    text = document("gray", resolver="c", service="https://gray:8443", namespace="shop") + of_consul
    assert one(text).service.text == "https://gray:8443"
    assert findings(read_rules(text).diagnostics) == [("notice", "no-effect", 6)]
    dotted = read_rules(document("gray", resolver="c", service="gray.shop") + of_consul)
    assert (dotted.mappings, findings(dotted.diagnostics)) == ((), [("error", "bad-value", 6)])
    address = document("gray", resolver="c", service="10.0.0.1:80") + of_consul
    assert consul(address) is None


@pytest.mark.parametrize(
    "attributes",
    [{}, {"datacenter": "''"}, {"datacenter": "dc1", "address": "a b"}, {"datacenter": "dc1", "address": "ftp://a"}]
    + [{"datacenter": "dc1", "address": address} for address in ("a:0", "a:70000", "a/b", "'${HOST}:8500'", "[]")],
)
def test_a_consul_resolver_in_error_keeps_its_last_good_version(attributes: dict[str, str]) -> None:
    user = document("gray", resolver="c")
    bad = read_rules(user + resolver("c", "ConsulResolver", **attributes))
    assert bad.mappings == ()
    assert "error" in {each[0] for each in findings(bad.diagnostics)}
    good = read_rules(user + resolver("c", "ConsulResolver", datacenter="dc1"))
    kept = parse(
        [Document(user + resolver("c", "ConsulResolver", **attributes), "rules.yaml")], previous=good, middleware=False
    )
    assert kept.mappings == good.mappings


def test_a_resolver_without_a_name_is_an_error_that_hides_no_mapping() -> None:
    text = "---\napiVersion: getambassador.io/v2\nkind: KubernetesEndpointResolver\n" + document("gray")
    assert findings(read_rules(text).diagnostics) == [("error", "no-name", 2)]
    assert asked(text) is None


def test_a_resolver_for_another_id_is_none_of_ours() -> None:
    text = document("gray", resolver="mine") + resolver("mine", ambassador_id="other")
    rules = read_rules(text)
    assert rules.mappings == ()
    assert {each[:2] for each in findings(rules.diagnostics)} == {
        ("error", "unknown-resolver"),
        ("notice", "other-ambassador-id"),
    }
    assert asked(text.replace("id: other", "id: [default, other]")) == GRAY


def test_an_unknown_resolver_of_the_module_is_an_error_that_takes_no_mapping_down() -> None:
    good = module("endpoint") + document("gray")
    bad = module("endpiont") + document("gray")
    rules = read_rules(bad)
    assert [(d.severity, d.code, d.message) for d in rules.diagnostics] == [
        ("error", "unknown-resolver", "Module ambassador: resolver endpiont is unknown")
    ]
    assert asked(bad) is None
    # After an edit the last good Module stays.
    assert asked(bad, previous=read_rules(good)) == GRAY


def test_resolvers_stay_while_a_file_cannot_be_read_to_its_end() -> None:
    good = document("gray", resolver="mine") + resolver("mine")
    cut = document("gray", resolver="mine") + "---\napiVersion: getambassador.io/v2\nkind: Kub"
    assert asked(cut, previous=read_rules(good)) == GRAY
