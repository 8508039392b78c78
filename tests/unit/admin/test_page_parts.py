"""What the pages are made of: figures as people read them, bars, charts, texts of others, static files."""

import hashlib
import json
import re
from importlib.resources import files

import pytest

from canary_mw.admin.pages import static_files, wording
from canary_mw.admin.pages.bars import Span, intervals, ring, split_bar
from canary_mw.admin.pages.charts import Line, chart, nice_ceiling, top_of
from canary_mw.admin.pages.environment import environment
from canary_mw.admin.pages.hostile import Typed, pieces, visible

NOW = "2026-11-27T14:06:59.000Z"


def test_figures_are_read_as_people_read_them() -> None:
    assert [wording.count(each) for each in (12480, 0, None)] == ["12,480", "0", "–"]
    assert [wording.rate(each) for each in (398.2, 99.96, 41.6, 0.9, 0.04, 0, None)] == [
        *("398", "100", "41.6", "0.9", "0.04", "0.0", "–"),
    ]
    assert [wording.weight(each) for each in (20.0, 2.5, 0.0001, 0)] == ["20 %", "2.5 %", "0.0001 %", "0 %"]
    assert [wording.milliseconds(each) for each in (31.4, 2.04, 999.4, 999.6, 1900, 12_000, 0)] == [
        *("31 ms", "2.0 ms", "999 ms", "1.00 s", "1.90 s", "12.0 s", "0 ms"),
    ]
    assert [wording.size(each) for each in (17, 2048, 3 << 20)] == ["17 bytes", "2 KiB", "3.0 MiB"]
    assert wording.plural(1, "worker") + wording.plural(4, "worker") == "1 worker4 workers"


def test_times_are_utc_with_the_date_of_another_day() -> None:
    assert wording.clock("2026-11-27T14:03:12.418Z", NOW) == "14:03:12"
    assert wording.clock("2026-11-27T15:03:12.418+01:00", NOW, 3) == "14:03:12.418"
    assert wording.clock("2026-11-26T14:03:12Z", NOW) == "2026-11-26 14:03:12"
    assert wording.clock(None, NOW) == "–"
    earlier = ["2026-11-27T14:06:58.412Z", "2026-11-27T14:06:50Z", "2026-11-27T13:06:59Z", "2026-11-27T09:06:59Z"]
    assert [wording.ago(each, NOW) for each in (*earlier, "2026-11-20T14:06:59Z", None)] == [
        *("now", "9 s ago", "60 min ago", "5 h ago", "7 days ago", "never"),
    ]


@pytest.mark.parametrize(
    "number", [0x00, 0x09, 0x1B, 0x7F, 0x85, 0xAD, 0x200B, 0x200E, 0x202E, 0x2028, 0x2029, 0x2066, 0xFEFF]
)
def test_what_changes_how_text_is_shown_becomes_a_box(number: int) -> None:
    text = f"a{chr(number)}b"
    assert pieces(text) == [(False, "a"), (True, f"U+{number:04X}"), (False, "b")]
    assert visible(text) == f"aU+{number:04X}b"
    assert visible(Typed(text)) == text


def test_other_texts_stay_as_they_are_up_to_200_characters() -> None:
    assert pieces("灰度 é ü – “x”") == [(False, "灰度 é ü – “x”")]
    assert pieces("é" * 201) == [(False, "é" * 200 + "…")]
    assert pieces("x" * 200) == [(False, "x" * 200)]


def test_a_template_escapes_and_shows_what_hides_without_being_asked() -> None:
    template = environment().from_string('<p title="{{ text }}">{{ text }}</p>{{ found.copy }}{{ found.items }}')
    shown = template.render(text='<b>"\u202e', found={"copy": "c", "items": "i"})
    assert shown == '<p title="&lt;b&gt;&#34;U+202E">&lt;b&gt;&#34;U+202E</p>ci'


@pytest.mark.parametrize(
    ("name", "expected"), [("a/b", "a%2Fb"), ("..", "?name=.."), ("x y?", "x%20y%3F"), ("é", "%C3%A9"), ("..a", "..a")]
)
def test_a_name_is_one_segment_of_a_path(name: str, expected: str) -> None:
    assert wording.release_path(name) == f"releases/{expected}"


def test_intervals_lie_on_their_scale() -> None:
    svg = intervals([Span(1, 2, 4), Span(None, None, None), Span(0, 4, None)], 4)
    assert svg.count('class="fill-track"') == 3
    assert 'class="fill-stable" x="25%" y="1" width="75%"' in svg
    assert 'class="fill-gray" x="0%" y="21" width="100%"' in svg
    assert svg.count('class="tick"') == 2
    assert float(re.findall(r'fill-stable" x="([\d.]+)%', intervals([Span(4, 4, 4)], 4))[0]) < 100


def test_a_split_and_a_ring_fill_no_more_than_there_is() -> None:
    widths = [
        float(each) for each in re.findall(r'fill-gray" x="[\d.]+%" y="0" width="([\d.]+)%', split_bar([70, 70], 100))
    ]
    assert widths == [70, 30]
    drawn = ring([(0, 20)], [10], 12.4)
    assert [drawn.count(each) for each in ('class="upright ', 'class="tick"', 'class="fill-gray"')] == [1, 2, 1]


@pytest.mark.parametrize(
    ("value", "expected"), [(0, 1), (3.46, 4), (0.04, 0.04), (212, 300), (1000, 1000), (6.1, 8), (9, 10)]
)
def test_a_scale_ends_at_a_round_number(value: float, expected: float) -> None:
    assert nice_ceiling(value) == pytest.approx(expected)


def test_a_line_has_gaps_where_nothing_was_measured() -> None:
    line = Line([1, 2, None, 3, None], [0, 1, None, 2, None], [2, 3, None, 4, None])
    svg = chart([line, line], 4, [0.5, 2], ["13:07: 1", "<"])
    assert svg.count("<polyline") == 4
    assert svg.count("<polygon") == 2
    assert svg.count('class="upright"') == 1
    assert "<title>&lt;</title>" in svg
    assert top_of([Line([1], [], [50])]) == 2
    assert top_of([Line([None])]) == 1


def test_static_files_are_named_by_their_content() -> None:
    for name in ("pages.css", "pages.js", "htmx.min.js", "hx-sse.min.js", "inter.woff2", "favicon.svg"):
        hashed = static_files.hashed_name(name)
        found = static_files.static_file(hashed)
        assert found is not None
        assert hashed.split(".")[-2] == hashlib.sha256(found.content).hexdigest()[:12]
    style = static_files.static_file(static_files.hashed_name("pages.css"))
    assert style is not None
    assert static_files.hashed_name("inter.woff2").encode() in style.content
    assert static_files.static_file("pages.css") is None
    assert static_files.static_file("../app.py") is None


def test_what_was_taken_over_is_as_it_was_published() -> None:
    folder = files("canary_mw.admin").joinpath("static")
    listed = json.loads(folder.joinpath("vendored.json").read_text())
    for name, described in listed.items():
        assert hashlib.sha256(folder.joinpath(name).read_bytes()).hexdigest() == described["sha256"]
        assert folder.joinpath(described["license_file"]).is_file()
    others = {each.name for each in folder.iterdir()} - listed.keys()
    assert others == {"pages.css", "pages.js", "favicon.svg", "vendored.json", "htmx-LICENSE.txt", "inter-LICENSE.txt"}


def test_the_stylesheet_asks_nobody_outside_and_has_no_colour_without_its_pair() -> None:
    text = files("canary_mw.admin").joinpath("static").joinpath("pages.css").read_text()
    assert re.findall(r"url\(\"?([^)\"]+)", text) == ["inter.woff2", "#stripes"]
    tokens = dict(re.findall(r"(--[\w-]+): (light-dark\([^)]+\)|#\w+);", text))
    assert all(value.startswith("light-dark") for value in tokens.values())
    body = text.partition("/* Frame */")[2]
    assert re.findall(r"#[0-9a-f]{3,6}\b", body) == []
    assert set(re.findall(r"var\((--[\w-]+)\)", text)) - tokens.keys() <= {"--mono", "--sans", "--variants"}


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1])
@pytest.mark.parametrize(
    ("words", "ground", "least"),
    [
        *((each, "card", 4.5) for each in ("ink", "second", "stable", "bad", "good", "gray-words")),
        *((each, "ground", 4.5) for each in ("ink", "second", "stable")),
        *((each, "sunk", 4.5) for each in ("ink", "second", "stable")),
        *((f"{each}-words", f"{each}-ground", 4.5) for each in ("bad", "good", "warn", "unsure")),
        *((each, "card", 3.0) for each in ("stable", "gray", "field")),
    ],
)  # fmt: skip
def test_words_and_graphics_stand_out_from_their_ground(scheme: int, words: str, ground: str, least: float) -> None:
    text = files("canary_mw.admin").joinpath("static").joinpath("pages.css").read_text()
    pairs = dict(re.findall(r"--([\w-]+): light-dark\((#\w+, #\w+)\)", text))
    one, other = (_luminance(pairs[name].split(", ")[scheme]) for name in (words, ground))
    assert (max(one, other) + 0.05) / (min(one, other) + 0.05) >= least
