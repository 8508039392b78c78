"""Descriptions of the fields of a GrayRelease, for the reference page and for editors."""

from canary_mw.config.reference.attribute_doc import AttributeDoc

VARIANTS = {
    "gray": AttributeDoc(
        "The variants, 1 to 16, each with its percent of the users: a number with at most four decimals, or a map of"
        " `weight`, `mappings` (names, by default the variant's own; at most one of a group), `at` (the percent where"
        " its users begin), `grow` (`up` or `down` from there) and `always` (`ids`, and a `file` of them). The order"
        " counts: end a variant by weight 0, and add new ones at the end. A list of names takes the percents from"
        " `steps`, or without them from the weights of the Mappings, which a hand or Argo Rollouts moves; one that is"
        " missing then counts as 0, with a warning. `stable`, `always` and `never` are no names.",
        "gray: {svc-gray: 20}",
    ),
    "stable": AttributeDoc(
        "Names of the Mappings of the stable side; `local` for the wrapped app.",
        "stable: svc",
        default="the Mappings of the group that no variant names",
    ),
    "enabled": AttributeDoc("`false`: everybody is stable, whatever else is said.", "enabled: false"),
    "on_zero": AttributeDoc(
        "What becomes of the users of a variant whose weight is set to 0: `eject` takes them out with the next request,"
        " `drain` leaves running sessions in it, by a cookie.",
        "on_zero: drain",
    ),
    "response_header": AttributeDoc(
        "Header that names the variant on every answer; `false` for none.",
        "response_header: x-variant",
        default="`x-canary-variant`",
    ),
}

KEYS = {
    "sticky": AttributeDoc(
        "By what a user is known: `header`, `cookie` or `query` with a name, or `client_ip`; of several the first that"
        " is present. A key has the same variant in every process and at every time. One that changes, as at log-in,"
        " changes the variant: use one key that exists throughout, or the anonymous cookie throughout. `user` and"
        " `session` with a dotted path read what the app knows: behind an authentication that stands outside of the"
        " middleware, what the function of `@canary_mw.user` gives, or else"
        ' `scope["user"]`, `scope["state"]["user"]` and `scope["session"]`, or `environ["canary_mw.user"]`'
        ' and `environ["canary_mw.session"]` in WSGI; nobody is known in the standalone proxy.',
        "sticky: [{header: x-user-id}, {cookie: uid}]",
    ),
    "missing": AttributeDoc(
        "What a request without a key gets: `stable`; `roll`, a draw for each request; or `cookie`, a random id in a"
        " cookie that is the key from then on.",
        "missing: cookie",
        default="`stable`, without `sticky` `cookie`",
    ),
    "cookie": AttributeDoc(
        "The cookie with the random id; it holds no variant. It is issued again after 180 days, and is not set on"
        " answers that a shared cache may keep. `consent` names a predicate: unless it is true, none is set or read.",
        "cookie: {name: cmw_id, max_age: 34560000, path: /, same_site: Lax}",
        default="as in the example",
    ),
    "salt": AttributeDoc(
        "Hashed with the key. Two releases with one salt and the same order of variants have the same users.",
        "salt: checkout-2026",
        default="the name",
    ),
    "hash": AttributeDoc(
        "`sha256`, or the hash of a product whose users are kept: `{kind: unleash, group: G}`,"
        " `{kind: growthbook, seed: S}`, `{kind: flagd-v2, flag: F}`, `{kind: flagd-v3, flag: F}`. A bare kind takes"
        " `salt` as the name. Texts are hashed as UTF-8; Unleash's node client and flagd's for JavaScript hash others"
        " than ASCII differently. The library mmh3, where it is installed, makes Unleash's and flagd's faster.",
        "hash: {kind: growthbook, seed: exp1}",
        default="`sha256`",
    ),
}

EXCEPTIONS = {
    "choice": AttributeDoc(
        "Where a request names its variant: `header`, then `cookie`, then `query`. `always` means the first variant,"
        " `never` and `stable` mean stable; `values` gives other words. `trusted: true` believes only trusted peers"
        " and signed headers.",
        "choice: {header: x-gray}",
        default="nobody chooses",
    ),
    "never": AttributeDoc(
        "Ids that are always stable: `ids`, and a `file` with one id a line.", "never: {ids: [anna]}"
    ),
    "layer": AttributeDoc(
        "The slice of a layer, in percent. Releases with disjoint slices of one layer share no user; weights are"
        " percents of the slice.",
        "layer: {name: checkout, from: 0, to: 50}",
    ),
    "holdout": AttributeDoc(
        "Percent of users who get no gray; releases that name the same holdout spare the same users.",
        "holdout: {name: q4, percent: 5}",
    ),
    "audience": AttributeDoc(
        "Who is drawn into a variant at all; all terms must hold: `user`, `session`, `header`, `cookie` and `query`"
        " with names and values, `client_ip` with networks, and `any`, `all` (lists of terms) and `not`. What is"
        " missing fails its term. A choice and `always` pass it by. `predicate` names a function that the app registers"
        " with `@canary_mw.predicate`. Where it fails, is late or is not registered, nobody is drawn by it, below `not`"
        " too.",
        "audience: {user: {plan: [pro, team]}, not: {client_ip: [10.0.0.0/8]}}",
        default="everybody",
    ),
}

SAFETY = {
    "fallback": AttributeDoc(
        "When stable answers in place of a failing gray variant; `{}` for the defaults: `on` (`connect`, `timeout`,"
        " `reset`, `overload`, 502, 503, 504), `gray_timeout_ms` (the smaller of 1500 and half of the Mapping's"
        " `timeout_ms`), `methods` (GET, HEAD, OPTIONS), `body` (0 bytes) and `budget` (`percent` 20, `min` 10,"
        " `interval` 10 seconds). `fallback: {}` is recommended.",
        "fallback: {}",
        default="off",
    ),
    "lane": AttributeDoc(
        "The name under which a trusted peer tells the decision in `x-canary-lane: LANE=VARIANT`.",
        "lane: checkout",
        default="the name",
    ),
    "propagate": AttributeDoc(
        "How the decision travels on. `hosts` get it in the requests of the app (name, `*.SUFFIX`, `NAME:PORT`,"
        " address, network), where the app has called `canary_mw.propagate.install`; every forwarded request has it."
        " `header` names the header; `format: tag` puts the bare name of the gray variant there and nothing for stable,"
        " as for Java services that read `x-mse-tag`. `baggage: true` also writes and reads the member `canary-lane`"
        " of W3C `baggage`, to these hosts only. See [full-link.md](full-link.md).",
        "propagate: {hosts: [pay, '*.shop.svc']}",
        default="no hosts; `x-canary-lane`",
    ),
}

ROLLOUT = {
    "steps": AttributeDoc(
        "How the weight grows; the names are those of Argo Rollouts. A list of `setWeight` (percent; not falling, not"
        " 0), `pause` (`duration`: so long at least; `{}`: until somebody promotes) and `analysis` (changes fields, and"
        " adds or replaces metrics, from the weight before it on). `auto` is 1, 5, 25, 50 and 100 with 10 minutes each."
        " After the last step comes 100. `gray` then holds no percents: it is a list, or a map with a `share` of each"
        " variant (1 without one). The release begins at weight 0.",
        "steps: [{setWeight: 5}, {pause: {duration: 10m}}, {setWeight: 50}, {pause: {}}, {setWeight: 100}]",
        default="none: the percents are those of `gray`",
    ),
    "analysis": AttributeDoc(
        "On which evidence a step up, or a rollback, follows; without it steps go by time alone. `{}` for the defaults:"
        " `mode` (`act`, or `advise` to say only what would be done), `alpha` (1%, at most 10%: the probability of a"
        " false rollback over the whole release), `margin` (0.5%: the share of all requests that a step up may newly"
        " hit), `minimum_keys` (20 users in gray in a step), `timeout` (6h for a step) with `on_timeout` (`hold`,"
        " `abort` or `advance`), and `metrics`, by default `error_rate` and `latency`. A metric has a `name`; `kind:"
        " event` counts what the app records, and `kind: value` the values that it records; `direction` (`increase` or"
        " `decrease` is worse), `share` (1) of alpha, `on_failure`, `margin` (latency and values: 2% if that is more),"
        " `tolerated` (1: the risk ratio that gray may have), `minimum_failures` (5) and `ignore_below` (0.1%). For"
        " latency and values also `quantiles` ([p95, p99]; of values [p50, p90]), which are those of the first 2,000"
        " of both versions, or `threshold`; for latency `allow`, taken off gray's times: a time or a percent, 10ms"
        " beside quantiles, else nothing. A metric with `provider: {prometheus: {address, query, timeout}}` (10s, at"
        " most 60s) is asked besides: `successCondition` or `failureCondition`, `interval` (1m), `failureLimit` (0, in"
        " a step) and `on_failure`. A percent is 1% or 1; a duration is 90s, 1h30m or a number of seconds.",
        "analysis: {alpha: 1%, metrics: [{name: error_rate}, {name: latency, allow: 10ms}, {name: paid, kind: event,"
        " direction: decrease}]}",
    ),
    "bake": AttributeDoc(
        "What follows the last step: `duration` (0), and `holdback` (0), the percent that stays stable, so that there"
        " still is something to compare with.",
        "bake: {duration: 30m, holdback: 5}",
    ),
    "promote": AttributeDoc(
        "`manual`: every raise waits for somebody to promote.", "promote: manual", default="`auto`"
    ),
    "on_failure": AttributeDoc(
        "What a failed metric leads to: `rollback`, or `hold`, which waits for somebody.",
        "on_failure: hold",
        default="`rollback`",
    ),
    "revision": AttributeDoc(
        "What is released, as an image tag. Another value is a new attempt, with new evidence.", 'revision: "1.4.2"'
    ),
    "hooks": AttributeDoc(
        "Addresses that are asked or told; the kinds are those of Flagger. Each has a `type` and a `url` (http or"
        " https), and may have `timeout` (10s), `name`, `metadata` (texts) and `muteAlert`.",
        "hooks: [{type: confirm-promotion, url: 'http://gate/approve', timeout: 5s}]",
    ),
}

GENERAL = {
    "ambassador_id": AttributeDoc("As for a Mapping.", "ambassador_id: [default]", default="every id"),
}

GRAY_RELEASE_SECTIONS = {
    "Variants": VARIANTS,
    "Who is who": KEYS,
    "Exceptions": EXCEPTIONS,
    "When gray fails, and what others hear": SAFETY,
    "Steps": ROLLOUT,
    "For whom": GENERAL,
}
GRAY_RELEASE_FIELDS = {name: text for section in GRAY_RELEASE_SECTIONS.values() for name, text in section.items()}
