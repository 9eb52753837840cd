"""The possible and the actual cost of orders, by the built-in and by operators' price files."""

import json
import math
import random
from decimal import ROUND_CEILING, Decimal
from pathlib import Path

import pytest

from pixyproxy.core.exceptions import ConfigurationException
from pixyproxy.core.models.order import InputPicture, Operation, PictureOrder, UpstreamAnswer, UpstreamUsage
from pixyproxy.core.models.price import PicturePrice, TokenPrice
from pixyproxy.service.private.billing.prices import OURS, Prices, load_prices

PRICES = load_prices(None)
MODELS = {name: price for name, price in PRICES.lists[0].items() if isinstance(price, TokenPrice)}
LISTED = [
    (model, quality, size, tokens)
    for model, price in MODELS.items()
    for quality, row in price.most_output_tokens.items()
    for size, tokens in row.items()
]
INPUT = InputPicture(field="image", media_type="image/png", byte_size=68, sha256="0" * 64)
FLARE = "gpt-image-2.5-flare"
DEFAULTS = {"quality": "medium", "size": "1024x1024"}
FACTORS = {
    "gpt-image-2": {"low": 16, "medium": 48, "high": 96},
    FLARE: {"low": 16, "medium": 24, "high": 48, "xhigh": 64, "max": 96},
    "gpt-image-2.5-sunburst": {"low": 16, "medium": 24, "high": 48, "xhigh": 64, "max": 96},
}
MOST_PIXELS, FEWEST_PIXELS, MOST_EDGE = 3840 * 2160, 655_360, 3840


def make_order(
    model: str = FLARE, *, prompt: str = "a cat", count: int = 1, previews: int = 0, inputs: int = 0, **options: object
) -> PictureOrder:
    return PictureOrder(
        model=model, prompt=prompt, count=count, previews=previews, inputs=(INPUT,) * inputs, options=options
    )


def bound_of(order: PictureOrder, prices: Prices = PRICES) -> int:
    bound = prices.upper_bound(order)
    assert bound is not None
    return bound


def cost_of(order: PictureOrder, usage: UpstreamUsage | None = None, *, prices: Prices = PRICES) -> int | None:
    return prices.cost(order, UpstreamAnswer(usage=usage), pictures=order.count)


def load(folder: Path, models: object) -> Prices:
    path = folder / "own.json"
    path.write_text(json.dumps({"models": models}), encoding="utf-8")
    return load_prices(path)


def calculated_tokens(factor: int, width: int, height: int) -> int:
    """Return the tokens by OpenAI's calculator for the gpt-image-2 family, as published in its forum."""
    longer, shorter = max(width, height), min(width, height)
    short_factor = (2 * factor * shorter + longer) // (2 * longer)
    return -(-factor * short_factor * (2_000_000 + width * height) // 4_000_000)


def random_size(dice: random.Random) -> tuple[int, int]:
    """Return a size that the gpt-image-2 family accepts."""
    while True:
        width, height = (16 * dice.randint(16, MOST_EDGE // 16) for _ in range(2))
        if FEWEST_PIXELS <= width * height <= MOST_PIXELS and max(width, height) <= 3 * min(width, height):
            return width, height


def random_order(dice: random.Random) -> PictureOrder:
    width, height = random_size(dice)
    options = {
        "quality": dice.choice(["low", "medium", "high", "xhigh", "max", "auto", "standard", None]),
        "size": dice.choice([f"{width}x{height}", "1024x1024", "1024x1536", "1536x1024", "auto", None]),
        "input_fidelity": dice.choice(["low", "high", None]),
    }
    return make_order(
        dice.choice(sorted(MODELS)),
        prompt="".join(dice.choices("a é猫🐈", k=dice.randint(1, 400))),
        count=dice.randint(1, 10),
        previews=dice.randint(0, 3),
        inputs=dice.randint(0, 16),
        **options,
    )


def most_usage_documented(order: PictureOrder) -> UpstreamUsage:
    """Return the documented maximum for an order; options left open take their most expensive values."""
    price = MODELS[order.model]
    table = price.most_output_tokens
    quality, size = order.options["quality"], order.options["size"]
    rows = [table[quality]] if quality in table else list(table.values())
    output = max(row[size] if size in row else max(row.values()) if size in {None, "auto"} else 0 for row in rows)
    high = order.options["input_fidelity"] == "high" or "low" not in price.most_input_tokens
    faithful = 65 + 4 * 129 + 6240 if high and "high" in price.most_input_tokens else 65 + 4 * 129
    return UpstreamUsage(
        input_text_tokens=order.count * (len(order.prompt.encode()) + 50 + 32 * len(order.inputs)),
        input_image_tokens=order.count * len(order.inputs) * faithful,
        output_image_tokens=order.count * (output + 100 * order.previews),
        output_text_tokens=order.count * price.most_output_text_tokens,
    )


@pytest.mark.parametrize(("model", "quality", "size", "tokens"), LISTED)
def test_listed_picture_costs_at_most_its_bound(model: str, quality: str, size: str, tokens: int) -> None:
    order = make_order(model, count=3, previews=2, inputs=2, quality=quality, size=size)
    usage = UpstreamUsage(
        input_text_tokens=3 * (5 + 50 + 64),
        input_image_tokens=3 * 2 * 323,
        output_image_tokens=3 * (tokens + 200),
    )
    cost = cost_of(order, usage)
    assert cost is not None
    assert cost <= bound_of(order)


@pytest.mark.parametrize("model", FACTORS)
def test_every_accepted_size_costs_at_most_its_bound(model: str) -> None:
    dice = random.Random(model)
    for _ in range(2_000):
        width, height = random_size(dice)
        quality, factor = dice.choice(sorted(FACTORS[model].items()))
        output = calculated_tokens(factor, width, height)
        usage = UpstreamUsage(input_text_tokens=50, output_image_tokens=output)
        order = make_order(model, quality=quality, size=f"{width}x{height}")
        cost = cost_of(order, usage)
        assert cost is not None
        assert cost <= bound_of(order)
        # A bound that is too high would reserve money needlessly.
        assert bound_of(order) <= 30 * 6 * output + 5 * 300


@pytest.mark.parametrize("model", FACTORS)
def test_listed_tokens_match_the_calculator(model: str) -> None:
    listed = {(quality, size): tokens for name, quality, size, tokens in LISTED if name == model}
    assert {quality for quality, _ in listed} == FACTORS[model].keys()
    assert listed == {
        (quality, size): calculated_tokens(FACTORS[model][quality], *map(int, size.split("x")))
        for quality, size in listed
    }


@pytest.mark.parametrize("seed", range(20))
def test_documented_usage_costs_at_most_the_bound(seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(100):
        order = random_order(dice)
        cost = cost_of(order, most_usage_documented(order))
        assert cost is not None
        assert cost <= bound_of(order)


@pytest.mark.parametrize("seed", range(20))
def test_larger_orders_never_lower_the_bound(seed: int) -> None:
    dice = random.Random(1_000 + seed)
    for _ in range(50):
        order = random_order(dice)
        for more in (
            {"count": order.count + 1},
            {"previews": order.previews + 1},
            {"inputs": (*order.inputs, INPUT)},
            {"prompt": order.prompt + "é"},
        ):
            assert bound_of(order.model_copy(update=more)) > bound_of(order)


def test_bound_matches_a_manual_calculation() -> None:
    # "a cat" is 5 bytes, plus 256 tokens, at 5; 1,756 tokens at 30.
    assert bound_of(make_order(quality="high", size="1024x1024")) == 261 * 5 + 1756 * 30


def test_bound_with_every_option_matches_a_manual_calculation() -> None:
    order = make_order("gpt-image-1.5", count=2, previews=3, inputs=2, quality="low", size="1536x1024")
    text, image, output = 5 + 256 + 2 * 64, 2 * 581, 400 + 512 + 300
    assert bound_of(order) == 2 * (text * 5 + image * 8 + output * 32)


def test_high_fidelity_counts_if_requested() -> None:
    low, high = (make_order("gpt-image-1.5", inputs=1, input_fidelity=fidelity) for fidelity in ("low", "high"))
    assert bound_of(high) - bound_of(low) == (6821 - 581) * 8


def test_always_faithful_model_ignores_low_fidelity() -> None:
    asked, unasked = make_order(inputs=1, input_fidelity="low"), make_order(inputs=1)
    assert bound_of(asked) == bound_of(unasked)
    assert bound_of(unasked) - bound_of(make_order()) == 6821 * 8 + 64 * 5


def test_cost_matches_a_manual_calculation() -> None:
    usage = UpstreamUsage(input_text_tokens=13, input_image_tokens=323, output_image_tokens=1056, output_text_tokens=7)
    assert cost_of(make_order("gpt-image-1.5"), usage) == 13 * 5 + 323 * 8 + 1056 * 32 + 7 * 10


def test_output_text_without_its_own_price_costs_as_images() -> None:
    assert cost_of(make_order(), UpstreamUsage(output_image_tokens=10, output_text_tokens=3)) == 13 * 30


def test_cost_is_rounded_up_once_at_the_end() -> None:
    # 1 token at 2.5 and 1 at 8 are 10.5.
    usage = UpstreamUsage(input_image_tokens=1, output_image_tokens=1)
    assert cost_of(make_order("gpt-image-1-mini"), usage) == 11


def test_costs_match_decimal_arithmetic(tmp_path: Path) -> None:
    dice = random.Random(7)
    model = token_price(input_text=0.000001, input_image=0.1, output_image=33.333333)
    prices = load(tmp_path, {"odd": model})
    order, total, expected = make_order("odd"), 0, Decimal(0)
    for _ in range(1_000):
        text, image, output = (dice.randint(1, 10**9) for _ in range(3))
        exact = Decimal("0.000001") * text + Decimal("0.1") * image + Decimal("33.333333") * output
        expected += exact.to_integral_value(ROUND_CEILING)
        usage = UpstreamUsage(input_text_tokens=text, input_image_tokens=image, output_image_tokens=output)
        total += cost_of(order, usage, prices=prices) or 0
    assert total == expected


@pytest.mark.parametrize("quality", ["auto", None, "standard", ["low"]])
@pytest.mark.parametrize("size", ["auto", None, "huge", "9" * 5_000 + "x1", {"width": 1}])
def test_open_options_are_bounded_by_the_most_expensive(quality: object, size: object) -> None:
    dearest = max(
        bound_of(make_order(quality=quality, size=size)) for model, quality, size, _ in LISTED if model == FLARE
    )
    assert bound_of(make_order(quality=quality, size=size)) == dearest


def test_unlisted_size_costs_at_least_any_smaller_listed_one() -> None:
    dice = random.Random(3)
    for _ in range(500):
        model, quality, size, tokens = dice.choice(LISTED)
        width, height = map(int, size.split("x"))
        unlisted = f"{width + dice.randint(0, 3000)}x{height + dice.randint(1, 3000)}"
        assert bound_of(make_order(model, quality=quality, size=unlisted)) >= tokens * 8


def test_size_beyond_the_listed_ones_grows_with_its_area() -> None:
    order = make_order("gpt-image-1", quality="low", size="4096x4096")
    assert bound_of(order) == 261 * 5 + 272 * 16 * 40


def test_listed_size_applies_to_both_orientations() -> None:
    assert bound_of(make_order(size="2160x3840")) == bound_of(make_order(size="3840x2160"))


@pytest.mark.parametrize(("frames", "pictures"), [(None, 9), (2, 2), (16, 16), (400, 16), (-3, 1), ("4", 16)])
def test_each_frame_of_a_gif_counts_as_a_picture(frames: object, pictures: int) -> None:
    order = make_order(quality="low", size="1024x1024", output_format="gif", frame_count=frames)
    assert bound_of(order) == 261 * 5 + pictures * 196 * 30


def test_svg_has_no_price() -> None:
    assert PRICES.upper_bound(make_order(output_format="svg")) is None


@pytest.mark.parametrize("usage", [None, UpstreamUsage(), UpstreamUsage(input_text_tokens=9)])
def test_bound_of_the_delivered_pictures_is_charged_without_a_usage(usage: UpstreamUsage | None) -> None:
    order = make_order(count=4, quality="low", size="1024x1024")
    cost = PRICES.cost(order, UpstreamAnswer(usage=usage), pictures=1)
    assert cost == bound_of(order.model_copy(update={"count": 1}))


def test_reported_options_are_used_without_a_usage() -> None:
    order, facts = make_order(size="auto"), {"quality": "low", "size": "1024x1024"}
    cost = PRICES.cost(order, UpstreamAnswer(facts=facts), pictures=1)
    assert cost == bound_of(make_order(quality="low", size="1024x1024"))


def test_reported_options_never_cost_more_than_the_bound() -> None:
    order = make_order(size=["1024x1024"])
    answer = UpstreamAnswer(facts={"quality": "max", "size": "99999x99999"})
    assert PRICES.cost(order, answer, pictures=1) == bound_of(order)


def test_response_without_pictures_and_usage_costs_nothing() -> None:
    assert PRICES.cost(make_order(), UpstreamAnswer(), pictures=0) == 0


def test_prompt_with_a_lone_surrogate_has_a_bound() -> None:
    assert bound_of(make_order(prompt="\ud800")) > 0


def test_unknown_model_has_no_price() -> None:
    assert PRICES.upper_bound(make_order("dall-e-9")) is None
    assert cost_of(make_order("dall-e-9"), UpstreamUsage(output_image_tokens=1)) is None


def test_offline_sketches_are_free() -> None:
    assert bound_of(make_order("offline-sketch", count=10)) == 0
    assert cost_of(make_order("offline-sketch")) == 0


@pytest.mark.parametrize("model", MODELS)
def test_dated_snapshot_costs_as_its_model(model: str) -> None:
    assert bound_of(make_order(f"{model}-2026-09-08")) == bound_of(make_order(model))


def test_built_in_file_has_every_documented_model() -> None:
    assert set(MODELS) == {
        "gpt-image-1", "gpt-image-1-mini", "gpt-image-1.5", "gpt-image-2", "gpt-image-2.5-flare",
        "gpt-image-2.5-sunburst", "chatgpt-image-latest",
    }  # fmt: skip


def token_price(**rates: float) -> dict[str, object]:
    return {
        "per_million_tokens": {"input_text": 1, "input_image": 1, "output_image": 1, **rates},
        "most_output_tokens": {"low": {"64x64": 10}},
        "most_input_tokens": {"*": 7},
    }


def test_flat_price_is_reserved_and_charged_exactly(tmp_path: Path) -> None:
    prices = load(tmp_path, {"shop": {"per_picture": {"high": {"1024x1024": 0.041, "auto": 0.05}}}})
    order = make_order("shop", count=7, inputs=3, quality="high", size="1024x1024")
    assert bound_of(order, prices) == 287_000
    assert cost_of(order, prices=prices) == 287_000
    assert cost_of(order, UpstreamUsage(output_image_tokens=9), prices=prices) == 287_000
    assert bound_of(make_order("shop", quality="high"), prices) == 50_000


def test_unlisted_size_of_a_flat_price_is_bounded_by_area(tmp_path: Path) -> None:
    prices = load(tmp_path, {"shop": {"per_picture": {"high": {"100x200": 0.01, "300x200": 0.02}}}})
    bounds = [
        bound_of(make_order("shop", quality="high", size=size), prices) for size in ("50x50", "150x200", "600x200")
    ]
    assert bounds == [20_000, 15_000, 60_000]


@pytest.mark.parametrize(
    ("listed", "bound"),
    [
        ({"100x400": 0.05, "300x300": 0.02}, 50_000),
        ({"400x100": 0.05, "50x50": 0.01, "300x300": 0.02}, 50_000),
        ({"100x400": 0.03, "400x400": 0.05}, 30_000),
        ({"100x400": 0.03}, 30_000),
        ({"100x100": 0.01, "200x200": 0.02}, 20_000),
    ],
)
def test_unlisted_size_costs_as_a_listed_one_of_equal_area(
    listed: dict[str, float], bound: int, tmp_path: Path
) -> None:
    prices = load(tmp_path, {"shop": {"per_picture": {"high": listed}}})
    assert bound_of(make_order("shop", quality="high", size="80x500"), prices) == bound


def test_bound_is_at_least_any_smaller_listed_price(tmp_path: Path) -> None:
    dice = random.Random(11)
    for _ in range(100):
        row = {f"{dice.randint(1, 6)}x{dice.randint(1, 6)}": dice.randint(1, 9) for _ in range(dice.randint(1, 6))}
        prices = load(tmp_path, {"shop": {"per_picture": {"high": row}}})
        width, height = dice.randint(1, 6), dice.randint(7, 12)
        areas = [(math.prod(map(int, size.split("x"))), dollars) for size, dollars in row.items()]
        most = max((dollars for area, dollars in areas if area <= width * height), default=0)
        order = make_order("shop", quality="high", size=f"{width}x{height}")
        assert bound_of(order, prices) >= most * 1_000_000


def test_star_in_a_table_matches_unlisted_values(tmp_path: Path) -> None:
    prices = load(tmp_path, {"shop": {"per_picture": {"low": {"*": 0.01}, "*": {"64x64": 0.02, "*": 0.03}}}})
    asked = [("low", "9x9"), ("max", "64x64"), ("max", "9x9"), (None, None)]
    bounds = [bound_of(make_order("shop", quality=quality, size=size), prices) for quality, size in asked]
    assert bounds == [10_000, 20_000, 30_000, 30_000]


def test_operators_price_replaces_the_built_in_one(tmp_path: Path) -> None:
    prices = load(tmp_path, {FLARE: {"per_picture": 0.25}})
    assert bound_of(make_order(count=2), prices) == 500_000
    assert bound_of(make_order("gpt-image-2"), prices) == bound_of(make_order("gpt-image-2"))


def test_null_removes_a_built_in_price_and_its_snapshots(tmp_path: Path) -> None:
    prices = load(tmp_path, {"gpt-image-2": None})
    assert prices.upper_bound(make_order("gpt-image-2")) is None
    assert prices.upper_bound(make_order("gpt-image-2-2026-04-21")) is None
    assert prices.upper_bound(make_order()) is not None


def test_most_specific_name_wins(tmp_path: Path) -> None:
    names = ["*", "shop-*", "shop-a*", "shop-a", "shop-a-2026-01-01"]
    prices = load(tmp_path, {name: {"per_picture": number} for number, name in enumerate(names)})
    asked = ["other", "shop-b", "shop-ab", "shop-a-2026-02-02", "shop-a-2026-01-01"]
    assert [bound_of(make_order(name), prices) for name in asked] == [0, 1_000_000, 2_000_000, 3_000_000, 4_000_000]


def test_operators_pattern_overrides_built_in_names(tmp_path: Path) -> None:
    assert load(tmp_path, {"gpt-image-*": None}).price_of(FLARE) is None


def test_number_is_read_exactly(tmp_path: Path) -> None:
    price = load(tmp_path, {"shop": {"per_picture": 0.1}}).price_of("shop")
    assert isinstance(price, PicturePrice)
    assert price.per_picture["*"]["*"] == Decimal("0.1")


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ('{"models": {', "line 1"),
        ("[]", '"models"'),
        ("{}", '"models"'),
        ('{"models": {}, "currency": "EUR"}', '"models"'),
        ('{"models": {"shop": {"per_picture": NaN}}}', "NaN"),
        ('{"models": {"shop": {"per_picture": 1}, "shop": null}}', "'shop' appears twice"),
        ('{"models": {"first": null, "shop": null, "shop": null}}', "'shop' appears twice"),
        ('{"models": {"s*p": null}}', "models.s*p"),
        ('{"models": {"shop": 1}}', "models.shop"),
        ('{"models": {"shop": {"per_picture": "1"}}}', "models.shop.per_picture.*.*"),
        ('{"models": {"shop": {"per_picture": -1}}}', "models.shop.per_picture.*.*"),
        ('{"models": {"shop": {"per_picture": 0.0000001}}}', "models.shop.per_picture.*.*"),
        ('{"models": {"shop": {"per_picture": 1e999999}}}', "models.shop.per_picture.*.*"),
        ('{"models": {"shop": {"per_picture": {}}}}', "models.shop.per_picture"),
        ('{"models": {"shop": {"per_picture": {"low": {"big": 1}}}}}', "models.shop.per_picture.low.big"),
        ('{"models": {"shop": {"per_picture": 1, "per_million_tokens": {}}}}', "models.shop.per_million_tokens"),
        ('{"models": {"shop": {"per_million_tokens": {}}}}', "models.shop.per_million_tokens.input_image"),
        ("[" * 100_000, "nests too deeply"),
        ("1" * 5_000, "digits"),
    ],
)  # fmt: skip
def test_malformed_file_is_rejected_with_the_location(content: str, place: str, tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigurationException) as caught:
        load_prices(path)
    assert str(path) in caught.value.message
    assert place in caught.value.message
    assert "PIXYPROXY_PRICES" in caught.value.message


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationException, match=r"absent\.json cannot be used: the file cannot be read"):
        load_prices(tmp_path / "absent.json")


def test_binary_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(ConfigurationException, match="not UTF-8"):
        load_prices(path)


def test_documented_file_works_as_described(tmp_path: Path) -> None:
    document = (Path(__file__).parents[4] / "docs" / "reference" / "prices.md").read_text(encoding="utf-8")
    (tmp_path / "own.json").write_text(document.split("```json\n")[1].split("```")[0], encoding="utf-8")
    prices = load_prices(tmp_path / "own.json")
    assert bound_of(make_order("shop-picture", quality="high"), prices) == 62_000
    assert bound_of(make_order("shop-free-a"), prices) == 0
    assert bound_of(make_order("studio-model"), prices) == 261 * 5 + (6240 + 512) * 30
    assert prices.upper_bound(make_order("gpt-image-2")) is None


def test_built_in_file_is_a_valid_operators_file() -> None:
    assert load_prices(OURS).lists[0] == PRICES.lists[0]


@pytest.mark.parametrize(
    ("options", "operation", "expected"),
    [
        ({}, Operation.GENERATE, {"quality": "medium", "size": "1024x1024"}),
        ({"quality": "low"}, Operation.GENERATE, {"quality": "low", "size": "1024x1024"}),
        ({"size": "1536x1024"}, Operation.GENERATE, {"quality": "medium", "size": "1536x1024"}),
        ({"quality": "auto", "size": "auto"}, Operation.GENERATE, {"quality": "auto", "size": "auto"}),
        ({"quality": "unlisted"}, Operation.GENERATE, {"quality": "unlisted"}),
        ({}, Operation.EDIT, {"quality": "medium"}),
    ],
)
def test_order_gets_missing_defaults(options: dict[str, str], operation: Operation, expected: dict[str, str]) -> None:
    order = PictureOrder(prompt="a fox", model=FLARE, operation=operation, options=options)
    assert PRICES.with_defaults(order, DEFAULTS).options == expected


def test_model_without_listed_sizes_gets_no_defaults() -> None:
    for model in ("unknown", "flat"):
        order = PictureOrder(prompt="a fox", model=model)
        prices = Prices([{"flat": PicturePrice.model_validate({"per_picture": 1})}])
        assert prices.with_defaults(order, DEFAULTS) == order


def test_model_billed_by_picture_gets_its_listed_defaults() -> None:
    table = {"medium": {"1024x1024": Decimal("0.04"), "*": Decimal("0.2")}, "high": {"*": Decimal(1)}}
    prices = Prices([{"shop": PicturePrice.model_validate({"per_picture": table})}])
    order = PictureOrder(prompt="a fox", model="shop")
    assert prices.with_defaults(order, DEFAULTS).options == {"quality": "medium", "size": "1024x1024"}
    assert bound_of(prices.with_defaults(order, DEFAULTS), prices) == 40_000


def test_defaults_make_the_bound_of_a_plain_order_tight() -> None:
    plain = make_order()
    assert bound_of(PRICES.with_defaults(plain, DEFAULTS)) * 20 < bound_of(plain)
