"""What is said at the start."""

from servers import mapping

from canary_mw.inspection.start import start_lines
from canary_mw.routing.table import RouteTable
from canary_mw.rules.service import Service

RULES = mapping("stable", "/shop/", "shop-stable") + mapping("gray", "/shop/", "shop-gray", weight=20)


def place(service: Service) -> str:
    return f"at {service.origin.authority}"


def said(text: str, *upstreams: str, local: str = "", middleware: bool = True) -> list[str]:
    """The lines; those that are warnings begin with "!"."""
    table = RouteTable.from_yaml(text, local={local} - {""}, middleware=middleware)
    return ["!" * line.is_warning + line.text for line in start_lines(table, "/etc/canary", upstreams, place)]


def test_source_number_local_service_and_places() -> None:
    assert said(RULES, "shop-gray", local="shop-stable") == [
        "2 Mappings from /etc/canary; local service shop-stable, 1 Mapping leads to it",
        "services: shop-stable in this process, shop-gray at shop-gray:80",
    ]


def test_without_a_local_service_that_is_said() -> None:
    (first, _) = said(RULES)
    assert first.endswith("; no local service is named, the app gets what no Mapping takes")
    assert said(RULES, middleware=False)[0].endswith("; no local service is named")


def test_a_local_service_that_no_mapping_leads_to_is_a_warning() -> None:
    (warning,) = [line for line in said(RULES, local="shop-stabel") if line[0] == "!"]
    assert "no Mapping leads to shop-stabel" in warning
    assert "did you mean shop-stable?" in warning


def test_an_upstream_that_no_mapping_uses_is_a_warning() -> None:
    lines = said(RULES, "service-grey", "shop-gray", "*")
    (warning,) = [line for line in lines if line[0] == "!"]
    assert "service-grey" in warning
    (close,) = [line for line in said(RULES, "shop-grey") if line[0] == "!"]
    assert "did you mean shop-gray?" in close


def test_many_services_are_counted() -> None:
    many = "".join(mapping(f"m{number}", f"/{number}/", f"shop-{number}") for number in range(50))
    assert said(many)[1].endswith("shop-9 at shop-9:80 and 40 more")


def test_without_rules_nothing_is_missed() -> None:
    assert said("", "shop", local="shop") == ["0 Mappings from /etc/canary; local service shop, 0 Mappings lead to it"]
