"""All targets by name; each takes any bytes and raises when something does not hold."""

from collections.abc import Callable

from . import answers, fast_path, grpc, guarding, heads, proxies, texts, values

Target = Callable[[bytes], None]

TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (
        texts.yaml,
        texts.documents,
        texts.annotations,
        texts.source,
        texts.rules,
        heads.forwarding,
        heads.answer_heads,
        heads.websockets,
        values.header_values,
        values.regex_rewrites,
        guarding.guard,
        answers.upstream_answers,
        grpc.grpc_answers,
        grpc.grpc_messages,
        proxies.whole_proxy,
        fast_path.plain_requests,
        fast_path.plain_responses,
    )
}
