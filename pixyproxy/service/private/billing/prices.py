"""The possible and the actual cost of an order, in whole micro-dollars, computed without floats.

An estimate that is too low breaks a budget; one that is too high only reserves money until the response. Where nothing
is documented, the higher value is used; docs/reference/prices.md names the source of each.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeGuard

from pydantic import ValidationError

from pixyproxy.core.exceptions import ConfigurationException
from pixyproxy.core.models.budget import MICRO
from pixyproxy.core.models.order import Operation, PictureOrder, UpstreamAnswer, UpstreamUsage
from pixyproxy.core.models.price import ANY, ModelPrice, PicturePrice, TokenPrice, TokenRates
from pixyproxy.core.settings import problems_of

OURS = Path(str(files("pixyproxy") / "prices.json"))
"""The built-in price file."""

TOKENS_AROUND_PROMPT = 256
"""Text tokens that the API may add to a prompt: not documented, a generous guess."""
TOKENS_AROUND_INPUT = 64
"""Text tokens that the API adds for each input picture; users report 32."""
TOKENS_PER_PREVIEW = 100
"""Output image tokens of one partial image (OpenAI's image generation guide, "Partial images cost")."""
DEFAULT_FRAMES, MOST_FRAMES = 9, 16
"""Frames of a GIF (openai 3.52, ImageGenerateParams); billing is not documented, so each counts as a picture."""
DEFAULT_FIDELITY = "low"
"""The default of ``input_fidelity`` for models that accept it (openai 3.52, ImageEditParams)."""

EDGES = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")
DATED = re.compile(r"(.+)-[0-9]{4}-[0-9]{2}-[0-9]{2}")
"""The name of a model's snapshot, which costs the same as the model."""
MODEL = re.compile(r"[^*]{1,128}|[^*]{0,127}\*")
AUTO = "auto"
LEFT_OPEN = ("quality", "size")
"""Options that an order may leave to the upstream, and that a response reports."""
ADVICE = "Correct the file (see docs/reference/prices.md for its format), or unset PIXYPROXY_PRICES."

_Listed = Mapping[str, ModelPrice | None]


@dataclass(frozen=True)
class Prices:
    """The prices of models, by name.

    ``lists`` are searched in order, and the first that contains a model decides; ``None`` in it means that the model
    has no price. ``None`` from a method means that the cost is unknown, never that it is zero.
    """

    lists: Sequence[_Listed]

    def price_of(self, model: str) -> ModelPrice | None:
        """Return the price of a model: by its name, its name without a date, or the longest matching pattern."""
        for listed in self.lists:
            dated = DATED.fullmatch(model)
            patterns = sorted((name for name in listed if _fits(model, name)), key=len, reverse=True)
            for name in (model, *([dated[1]] if dated else []), *patterns):
                if name in listed:
                    return listed[name]
        return None

    def with_defaults(self, order: PictureOrder, defaults: Mapping[str, str]) -> PictureOrder:
        """Return the order with default quality and size where it names none, so that its bound is tight.

        Only values in the model's price list are added: an upstream may reject others. An edit gets no size, since the
        upstream takes it from the input picture.
        """
        price = self.price_of(order.model)
        table = price.most_output_tokens if isinstance(price, TokenPrice) else price.per_picture if price else {}
        added: dict[str, str] = {}
        if "quality" in defaults and "quality" not in order.options and defaults["quality"] in table:
            added["quality"] = defaults["quality"]
        row = table.get(str({**order.options, **added}.get("quality")), {})
        is_new = order.operation is Operation.GENERATE
        if is_new and "size" in defaults and "size" not in order.options and defaults["size"] in row:
            added["size"] = defaults["size"]
        return order.model_copy(update={"options": {**order.options, **added}}) if added else order

    def upper_bound(self, order: PictureOrder) -> int | None:
        """Return the highest possible cost of an order in micro-dollars, whatever its outcome."""
        return self._bound(order, pictures=order.count)

    def cost(self, order: PictureOrder, answer: UpstreamAnswer, *, pictures: int) -> int | None:
        """Return the cost in micro-dollars of a response with this number of pictures, rounded up once, at the end.

        Without a usage it is the bound for these pictures, with the quality and size that the response reports where
        the order left them open.
        """
        price = self.price_of(order.model)
        if isinstance(price, TokenPrice) and _is_usable(answer.usage, pictures=pictures):
            return _charge(price.per_million_tokens, answer.usage)
        bounds = (self._bound(asked, pictures=pictures) for asked in (order, _as_answered(order, answer.facts)))
        return min((bound for bound in bounds if bound is not None), default=None)

    def _bound(self, order: PictureOrder, *, pictures: int) -> int | None:
        price = self.price_of(order.model)
        if isinstance(price, PicturePrice):
            amounts = {
                quality: {size: _micros(dollars) for size, dollars in row.items()}
                for quality, row in price.per_picture.items()
            }
            return _most_of(amounts, order.options) * pictures
        # An SVG is made by another model with its own tokens and price (openai 3.52, SvgUsage).
        if price is None or order.options.get("output_format") == "svg":
            return None
        return _charge(price.per_million_tokens, _most_usage(price, order, pictures=pictures))


def load_prices(path: Path | None) -> Prices:
    """Load the built-in prices, and an operator's file with precedence. Raise ``ConfigurationException``."""
    own = [] if path is None else [_read(path)]
    return Prices(lists=(*own, _read(OURS)))


def _fits(model: str, pattern: str) -> bool:
    return pattern.endswith("*") and model.startswith(pattern[:-1])


def _is_usable(usage: UpstreamUsage | None, *, pictures: int) -> TypeGuard[UpstreamUsage]:
    """Return whether a usage is plausible: some servers report zeros, but no picture takes no tokens."""
    return usage is not None and (pictures == 0 or usage.output_image_tokens + usage.output_text_tokens > 0)


def _most_usage(price: TokenPrice, order: PictureOrder, *, pictures: int) -> UpstreamUsage:
    """Return the most tokens of an order. Several pictures are billed as that many orders of one, inputs included."""
    # A text token is at least one byte, whatever the tokenizer.
    text = len(order.prompt.encode(errors="surrogatepass")) + TOKENS_AROUND_PROMPT
    text += len(order.inputs) * TOKENS_AROUND_INPUT
    each = _most_of(price.most_output_tokens, order.options) * _frames(order.options)
    # Older responses do not separate text from image tokens in their output, so assume the more expensive kind.
    each += price.most_output_text_tokens + order.previews * TOKENS_PER_PREVIEW
    return UpstreamUsage(
        input_text_tokens=text * pictures,
        input_image_tokens=len(order.inputs) * _most_input(price, order.options) * pictures,
        output_image_tokens=each * pictures,
    )


def _most_input(price: TokenPrice, options: Mapping[str, Any]) -> int:
    fidelity, most = options.get("input_fidelity") or DEFAULT_FIDELITY, price.most_input_tokens
    listed = most.get(str(fidelity), most.get(ANY))
    return max(most.values()) if listed is None else listed


def _frames(options: Mapping[str, Any]) -> int:
    if options.get("output_format") != "gif":
        return 1
    frames = options.get("frame_count")
    if frames is None:
        return DEFAULT_FRAMES
    return min(max(frames, 1), MOST_FRAMES) if isinstance(frames, int) else MOST_FRAMES


def _charge(rates: TokenRates, usage: UpstreamUsage) -> int:
    text_rate = rates.output_image if rates.output_text is None else rates.output_text
    parts = (
        usage.input_text_tokens * _micros(rates.input_text)
        + usage.input_image_tokens * _micros(rates.input_image)
        + usage.output_image_tokens * _micros(rates.output_image)
        + usage.output_text_tokens * _micros(text_rate)
    )
    return _divide_up(parts, MICRO)


def _micros(dollars: Decimal) -> int:
    """Return micro-dollars, exactly: a price has at most six decimals."""
    return int(dollars.scaleb(6))


def _divide_up(number: int, by: int) -> int:
    return -(-number // by)


def _most_of(table: Mapping[str, Mapping[str, int]], options: Mapping[str, Any]) -> int:
    """Return the amount for one picture, or the highest possible amount for options that are left open."""
    quality, size = (str(options.get(name) or AUTO) for name in LEFT_OPEN)
    row = table.get(quality, table.get(ANY))
    return max(_most_of_row(each, size) for each in (table.values() if row is None else [row]))


def _most_of_row(row: Mapping[str, int], size: str) -> int:
    edges = EDGES.fullmatch(size)
    turned = f"{edges[2]}x{edges[1]}" if edges else size
    for name in (size, turned, ANY):
        if name in row:
            return row[name]
    return _most_of_area(row, int(edges[1]) * int(edges[2])) if edges else max(row.values())


def _most_of_area(row: Mapping[str, int], area: int) -> int:
    """Return the most for a picture of an area from the listed sizes: never less than for any smaller area.

    Of all shapes of one area, the square costs the most. A larger square costs more than a smaller one, but less per
    pixel (OpenAI's calculator). So the next larger square is an upper bound, and so is any smaller size scaled up in
    proportion.
    """
    listed = [(int(edges[1]), int(edges[2]), most) for size, most in row.items() if (edges := EDGES.fullmatch(size))]
    smaller = [(width * height, most) for width, height, most in listed if width * height <= area]
    squares = [most for width, height, most in listed if width == height and width * height >= area]
    grown = [max(_divide_up(most * area, since) for since, most in smaller)] if smaller else []
    enough = min(squares + grown, default=max(row.values()))
    return max([enough, *(most for _, most in smaller)])


def _as_answered(order: PictureOrder, facts: Mapping[str, Any]) -> PictureOrder:
    """Return the order with the reported quality and size where it left them to the upstream."""
    named = {name: facts[name] for name in LEFT_OPEN if facts.get(name) and order.options.get(name) in (None, AUTO)}
    return order.model_copy(update={"options": {**order.options, **named}})


def _read(path: Path) -> _Listed:
    """Read the models of a price file. Raise ``ConfigurationException``."""
    try:
        content = _read_json(path)
        return _read_models(content)
    except OSError as error:
        raise _unusable(path, f"the file cannot be read ({error.strerror})") from error
    except RecursionError as error:
        raise _unusable(path, "its JSON nests too deeply") from error
    except UnicodeDecodeError as error:
        raise _unusable(path, "it is not UTF-8") from error
    except ValueError as error:
        raise _unusable(path, str(error)) from error


def _read_json(path: Path) -> object:
    # A float would not be exactly the number in the file.
    content: object = json.loads(
        path.read_text(encoding="utf-8"), parse_float=Decimal, parse_constant=_refuse, object_pairs_hook=_unique
    )
    return content


def _read_models(content: object) -> _Listed:
    """Return the models in a file's content. Raise ``ValueError`` with the location of the problem."""
    models = content.get("models") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(models, dict) or content.keys() - {"models", "note"}:
        problem = 'it must be an object with the member "models" (prices by model name) and optionally "note"'
        raise ValueError(problem)
    return {name: _read_price(name, price) for name, price in models.items()}


def _read_price(name: str, price: object) -> ModelPrice | None:
    if not MODEL.fullmatch(name):
        problem = f"models.{name}: a name must have 1 to 128 characters, and * only at its end"
        raise ValueError(problem)
    if price is None:
        return None
    kind = PicturePrice if isinstance(price, dict) and "per_picture" in price else TokenPrice
    try:
        return kind.model_validate(price)
    except ValidationError as error:
        raise ValueError("; ".join(f"models.{name}.{problem}" for problem in problems_of(error))) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        problem = f"{next(name for name in names if names.count(name) > 1)!r} appears twice in one object"
        raise ValueError(problem)
    return members


def _refuse(text: str) -> object:
    problem = f"{text} is not a JSON number"
    raise ValueError(problem)


def _unusable(path: Path, problem: str) -> ConfigurationException:
    return ConfigurationException(f"The price file {path} cannot be used: {problem}. {ADVICE}")
