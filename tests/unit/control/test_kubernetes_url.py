"""`k8s://` addresses, alone and in lists."""

import pytest

from canary_mw.control.sources.kubernetes_url import KubernetesURL, in_list, split_rules
from canary_mw.exceptions import ConfigError
from canary_mw.middleware.settings import MiddlewareSettings


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("k8s://", KubernetesURL(text="k8s://")),
        ("k8s://shop", KubernetesURL(text="k8s://shop", namespaces=("shop",))),
        ("k8s://*", KubernetesURL(text="k8s://*", namespaces=("",))),
        ("k8s://a,b-2", KubernetesURL(text="k8s://a,b-2", namespaces=("a", "b-2"))),
        (
            "k8s://?selector=app%20in%20(a,b)&kinds=mappings",
            KubernetesURL(
                text="k8s://?selector=app%20in%20(a,b)&kinds=mappings",
                selector="app in (a,b)",
                kinds=("mappings",),
                kinds_named=True,
            ),
        ),
        (
            "k8s://?kubeconfig=/a+b&context=arn:aws&exec=allow&empty=keep&selector=app=x",
            KubernetesURL(
                text="k8s://?kubeconfig=/a+b&context=arn:aws&exec=allow&empty=keep&selector=app=x",
                selector="app=x",
                kubeconfig="/a+b",
                context="arn:aws",
                may_exec=True,
                keep_last=True,
            ),
        ),
    ],
)
def test_an_address_says_what_is_read(text: str, expected: KubernetesURL) -> None:
    assert KubernetesURL.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("k8s://Shop", "'Shop' is no name"),
        ("k8s://shop/", "'shop/' is no name"),
        ("k8s://a,,b", "'' is no name"),
        ("k8s://a,*", "is no name"),
        ("k8s://shop?kind=mappings", "is no option"),
        ("k8s://shop?kinds=", "is no option"),
        ("k8s://shop?kinds=httproutes", "'httproutes' is not read"),
        ("k8s://shop?exec=yes", "use exec=allow"),
        ("k8s://shop?empty=no", "use empty=keep"),
        ("k8s://shop?selector=a&selector=b", "named twice"),
    ],
)
def test_what_is_wrong_with_an_address_is_said(text: str, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        KubernetesURL.parse(text)
    assert part in str(caught.value)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    "rules",
    [
        ("k8s://shop",),
        ("/etc/rules", "k8s://shop?context=arn:aws:eks", "more.yaml"),
        ("k8s://", "k8s://shop"),
        ("k8s", "/x"),
    ],
)
def test_a_list_of_paths_and_addresses_comes_back_from_the_environment(rules: tuple[str, ...]) -> None:
    settings = MiddlewareSettings(rules=rules)
    back = MiddlewareSettings.from_environ(settings.to_environ()).rules
    assert [each.replace("%3A", ":") for each in back] == list(rules)
    parsed = [KubernetesURL.parse(each).context for each in back if each.startswith("k8s://")]
    assert parsed == [KubernetesURL.parse(each).context for each in rules if each.startswith("k8s://")]


def test_other_separators_split_as_ever() -> None:
    assert split_rules("a,k8s://b", ",") == ["a", "k8s://b"]
    assert in_list("a:b", ":") == "a:b"
