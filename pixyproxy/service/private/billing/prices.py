"""What an order may cost, and what it did: whole micro-dollars, reckoned without floats.

An estimate that is too low breaks a budget and one that is too high only holds money back until the answer is here, so
wherever nothing is documented the dearer figure is taken; docs/reference/prices.md names the source of each.
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
"""Micro-dollars in a dollar; likewise the parts of a micro-dollar that a rate may have."""

TOKENS_AROUND_PROMPT = 256
"""Text tokens that the API may add to a prompt: not documented, and generously guessed."""
TOKENS_AROUND_INPUT = 64
"""Text tokens that the API adds for each picture that is sent along; its users report 32."""
TOKENS_PER_PREVIEW = 100
"""Output image tokens of one partial image (OpenAI's image generation guide, "Partial images cost")."""
DEFAULT_FRAMES, MOST_FRAMES = 9, 16
"""Of a GIF (openai 3.52, ImageGenerateParams); how they are billed is not documented, so each counts as a picture."""
DEFAULT_FIDELITY = "low"
"""Of ``input_fidelity``, on the models that take it (openai 3.52, ImageEditParams)."""

EDGES = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")
DATED = re.compile(r"(.+)-[0-9]{4}-[0-9]{2}-[0-9]{2}")
"""The name of a model's snapshot; it costs what its model does."""
MODEL = re.compile(r"[^*]{1,128}|[^*]{0,127}\*")
AUTO = "auto"
LEFT_OPEN = ("quality", "size")
"""Options that an order may leave to the upstream, and that an answer names."""
ADVICE = "Mend the file (docs/reference/prices.md has its format), or unset PIXYPROXY_PRICES."

_Listed = Mapping[str, ModelPrice | None]


@dataclass(frozen=True)
class Prices:
    """The prices of models, by name.

    ``lists`` are searched in turn, and the first that knows a model decides; ``None`` in it means that the model has
    no price. Where a method gives ``None``, the cost is not known: never that there is none.
    """

    lists: Sequence[_Listed]

    def price_of(self, model: str) -> ModelPrice | None:
        """The price of a model: under its name, its name without a date, or the longest pattern that fits it."""
        for listed in self.lists:
            dated = DATED.fullmatch(model)
            patterns = sorted((name for name in listed if _fits(model, name)), key=len, reverse=True)
            for name in (model, *([dated[1]] if dated else []), *patterns):
                if name in listed:
                    return listed[name]
        return None

    def with_defaults(self, order: PictureOrder, defaults: Mapping[str, str]) -> PictureOrder:
        """Return the order with the default quality and size that it names none of, so that its bound is tight.

        Only what the model's price lists is added: an upstream may refuse other values. An edit gets no size, since
        the upstream takes that from the picture to edit.
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
        """The most micro-dollars that an order can cost, whatever comes of it."""
        return self._bound(order, pictures=order.count)

    def cost(self, order: PictureOrder, answer: UpstreamAnswer, *, pictures: int) -> int | None:
        """The micro-dollars that an answer with so many pictures cost, rounded up once, at the end.

        Without a usage to go by it is the bound for these pictures, of the quality and size that the answer names
        where the order left them open.
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
        # An SVG is written by another model, whose tokens and price are its own (openai 3.52, SvgUsage).
        if price is None or order.options.get("output_format") == "svg":
            return None
        return _charge(price.per_million_tokens, _most_usage(price, order, pictures=pictures))


def load_prices(path: Path | None) -> Prices:
    """Our prices, and before them those of an operator's file. Raises ``ConfigurationException``."""
    own = [] if path is None else [_read(path)]
    return Prices(lists=(*own, _read(OURS)))


def _fits(model: str, pattern: str) -> bool:
    return pattern.endswith("*") and model.startswith(pattern[:-1])


def _is_usable(usage: UpstreamUsage | None, *, pictures: int) -> TypeGuard[UpstreamUsage]:
    """Whether to believe a usage: some servers report zeros, but no picture takes no tokens."""
    return usage is not None and (pictures == 0 or usage.output_image_tokens + usage.output_text_tokens > 0)


def _most_usage(price: TokenPrice, order: PictureOrder, *, pictures: int) -> UpstreamUsage:
    """The most tokens of an order. Several pictures are billed as that many orders of one, inputs included."""
    # A token of text is at least one byte of it, whatever the tokenizer.
    text = len(order.prompt.encode(errors="surrogatepass")) + TOKENS_AROUND_PROMPT
    text += len(order.inputs) * TOKENS_AROUND_INPUT
    each = _most_of(price.most_output_tokens, order.options) * _frames(order.options)
    # Older answers do not tell text from image tokens in their output, so all are taken for the dearer kind.
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
    """Exact: a price has six decimals at the most."""
    return int(dollars.scaleb(6))


def _divide_up(number: int, by: int) -> int:
    return -(-number // by)


def _most_of(table: Mapping[str, Mapping[str, int]], options: Mapping[str, Any]) -> int:
    """The amount for one picture, or the most that it may be where the options leave open which it is."""
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
    """The most for a picture of an area, by what is listed: never less than anything of no more area.

    Of all shapes of one area the square is the dearest, and a larger square is dearer than a smaller one, while a
    pixel of it is cheaper (OpenAI's calculator). So the next square of no less area is enough, and so is whatever is
    smaller once it is grown in proportion.
    """
    listed = [(int(edges[1]), int(edges[2]), most) for size, most in row.items() if (edges := EDGES.fullmatch(size))]
    smaller = [(width * height, most) for width, height, most in listed if width * height <= area]
    squares = [most for width, height, most in listed if width == height and width * height >= area]
    grown = [max(_divide_up(most * area, since) for since, most in smaller)] if smaller else []
    enough = min(squares + grown, default=max(row.values()))
    return max([enough, *(most for _, most in smaller)])


def _as_answered(order: PictureOrder, facts: Mapping[str, Any]) -> PictureOrder:
    """The order with the quality and size that it left to the upstream, as the answer names them."""
    named = {name: facts[name] for name in LEFT_OPEN if facts.get(name) and order.options.get(name) in (None, AUTO)}
    return order.model_copy(update={"options": {**order.options, **named}})


def _read(path: Path) -> _Listed:
    """The models of a price file. Raises ``ConfigurationException``."""
    try:
        content = _read_json(path)
        return _read_models(content)
    except OSError as error:
        raise _unusable(path, f"it cannot be read ({error.strerror})") from error
    except RecursionError as error:
        raise _unusable(path, "it nests too deeply") from error
    except UnicodeDecodeError as error:
        raise _unusable(path, "it is not UTF-8") from error
    except ValueError as error:
        raise _unusable(path, str(error)) from error


def _read_json(path: Path) -> object:
    # A float would not be the number that the operator wrote.
    content: object = json.loads(
        path.read_text(encoding="utf-8"), parse_float=Decimal, parse_constant=_refuse, object_pairs_hook=_unique
    )
    return content


def _read_models(content: object) -> _Listed:
    """The models in what a file holds. Raises ``ValueError``, which says where in the file."""
    models = content.get("models") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(models, dict) or content.keys() - {"models", "note"}:
        problem = 'it must be an object with "models", an object of prices by model, and nothing else but "note"'
        raise ValueError(problem)
    return {name: _read_price(name, price) for name, price in models.items()}


def _read_price(name: str, price: object) -> ModelPrice | None:
    if not MODEL.fullmatch(name):
        problem = f"models.{name}: a name has 1 to 128 characters, and a * at its end alone"
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
        problem = f"{next(name for name in names if names.count(name) > 1)!r} stands twice in one object"
        raise ValueError(problem)
    return members


def _refuse(text: str) -> object:
    problem = f"{text} is no number of JSON"
    raise ValueError(problem)


def _unusable(path: Path, problem: str) -> ConfigurationException:
    return ConfigurationException(f"The price file {path} cannot be used: {problem}. {ADVICE}")
