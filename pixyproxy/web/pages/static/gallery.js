/**
 * The page at "/": the newest public pictures, from `GET /image`. Paths are relative to the page, which a reverse
 * proxy may serve under a path.
 *
 * Client input, such as prompts, is inserted as text or as an attribute's value, never as HTML.
 */

const PAGE_SIZE = 24;
const OFFLINE_MODEL = "offline-sketch";

/** Maximum length; prompts have up to 32,000 characters, too long for screen readers to read aloud. */
const LONGEST_ALTERNATIVE_TEXT = 300;

/** Time to wait for the next key before searching, in milliseconds. */
const TYPING_PAUSE = 300;

const byId = (id) => document.getElementById(id);
const grid = byId("grid");
const more = byId("more");
const input = byId("prompt");

const dateFormat = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

/** The path of the next page; null if there is none. */
let nextPage = null;

/** Cancels the running request when a newer one replaces it. */
let underWay = new AbortController();

/** Repeats the last request, for "Try again". */
let lastAttempt = () => {};

/** An error with a message for the user. */
class Problem extends Error {
  constructor(title, detail, requestId) {
    super(title);
    this.detail = detail;
    this.requestId = requestId;
  }
}

/** Return the problem in an error response (RFC 9457), or a generic one for other bodies. */
async function readProblem(response) {
  const isProblem = response.headers.get("Content-Type")?.includes("json");
  const body = (isProblem && (await response.json().catch(() => null))) || {};
  return new Problem(
    body.title ?? "The pictures could not be loaded",
    body.errors?.map((error) => `${error.loc.at(-1)}: ${error.msg}.`).join(" ") ??
      body.detail ??
      `The server answered with status ${response.status}.`,
    body.request_id ?? response.headers.get("X-Request-ID"),
  );
}

/** Return the path of the `Link: <…>; rel="next"` header (RFC 8288) or null. */
function readNextPage(response) {
  const target = response.headers.get("Link")?.match(/<([^>]*)>\s*;\s*rel="?next"?/)?.[1];
  if (!target) return null;
  // Behind a proxy the server may use another origin than the one this page may connect to.
  const url = new URL(target, location.href);
  return url.pathname + url.search;
}

/** Return the pictures at `path` and the path of the next page. */
async function fetchPage(path, signal) {
  let response;
  try {
    response = await fetch(path, { signal, headers: { Accept: "application/json" } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The server cannot be reached", "Check the connection and try again.");
  }
  if (!response.ok) throw await readProblem(response);
  return { pictures: await response.json(), next: readNextPage(response) };
}

function formatBytes(count) {
  const [value, unit] = count < 1e6 ? [count / 1e3, "kilobyte"] : [count / 1e6, "megabyte"];
  const digits = value < 10 ? 1 : 0;
  return new Intl.NumberFormat(undefined, { style: "unit", unit, maximumFractionDigits: digits }).format(value);
}

function shorten(text, length) {
  const characters = [...text];
  return characters.length <= length ? text : `${characters.slice(0, length).join("")}…`;
}

/** Return the list item for one ImageDetail. */
function buildCard(picture) {
  const card = byId("card").content.cloneNode(true);
  const path = `image/${encodeURIComponent(picture.guid)}/content`;
  card.querySelector(".frame").setAttribute("href", path);

  const image = card.querySelector("img");
  image.setAttribute("alt", shorten(picture.prompt, LONGEST_ALTERNATIVE_TEXT));
  image.setAttribute("width", picture.width);
  image.setAttribute("height", picture.height);
  image.setAttribute("src", path);

  const prompt = card.querySelector(".prompt");
  const text = picture.prompt_truncated ? `${picture.prompt}…` : picture.prompt;
  prompt.textContent = text;
  prompt.setAttribute("title", text);

  const isOffline = picture.model === OFFLINE_MODEL;
  card.querySelector(".badge").hidden = !isOffline;
  card.querySelector(".model").hidden = isOffline;
  card.querySelector(".model").textContent = picture.model;
  card.querySelector(".size").textContent =
    `${picture.width} × ${picture.height} · ${formatBytes(picture.byte_size)}`;
  const time = card.querySelector("time");
  time.setAttribute("datetime", picture.created_at);
  time.textContent = dateFormat.format(new Date(picture.created_at));
  return card;
}

function showProblem(problem) {
  byId("error-title").textContent = problem.message;
  byId("error-detail").textContent = problem.detail;
  byId("error-request-id").textContent = problem.requestId ?? "";
  byId("error-request").hidden = !problem.requestId;
  byId("error").hidden = false;
}

/** Fetch `path` and pass its pictures to `show`; on failure call `clear` and display the problem. */
async function load(path, show, clear = () => {}) {
  underWay.abort();
  const attempt = new AbortController();
  underWay = attempt;
  lastAttempt = () => load(path, show, clear);
  byId("error").hidden = true;
  grid.setAttribute("aria-busy", "true");
  more.disabled = true;
  try {
    const page = await fetchPage(path, attempt.signal);
    nextPage = page.next;
    show(page.pictures);
    more.hidden = nextPage === null;
  } catch (error) {
    if (attempt.signal.aborted) return;
    more.hidden = true;
    clear();
    showProblem(error instanceof Problem ? error : new Problem("The response could not be read", String(error)));
  }
  if (underWay === attempt) {
    grid.removeAttribute("aria-busy");
    more.disabled = false;
  }
}

/** Show the first page of the search in the page's URL. */
function showFirstPage() {
  const sought = new URL(location.href).searchParams.get("prompt")?.trim() ?? "";
  if (input.value.trim() !== sought) input.value = sought;
  byId("heading").textContent = sought ? `Pictures with “${sought}”` : "Newest pictures";
  const query = new URLSearchParams({ limit: PAGE_SIZE, ...(sought && { prompt: sought }) });
  byId("sought").textContent = sought;
  byId("empty").hidden = true;
  byId("nothing-found").hidden = true;
  const show = (pictures) => {
    grid.replaceChildren(...pictures.map(buildCard));
    byId("empty").hidden = pictures.length > 0 || sought !== "";
    byId("nothing-found").hidden = pictures.length > 0 || sought === "";
    byId("status").textContent = `Pictures shown: ${pictures.length}`;
  };
  // Remove the previous search's pictures, which do not match the new heading.
  return load(`image?${query}`, show, () => grid.replaceChildren());
}

/** Add the next page, and move the keyboard focus to its first picture. */
function showNextPage() {
  return load(nextPage, (pictures) => {
    const known = grid.children.length;
    grid.append(...pictures.map(buildCard));
    grid.children[known]?.querySelector("a").focus({ preventScroll: true });
    byId("status").textContent = `Pictures shown: ${grid.children.length}`;
  });
}

/** Put the search text into the page's URL, and show the results. */
function search() {
  const sought = input.value.trim();
  const query = sought ? `?${new URLSearchParams({ prompt: sought })}` : "";
  if (query === location.search) return;
  history.replaceState(null, "", location.pathname + query);
  showFirstPage();
}

byId("example").textContent = `curl ${new URL("image", location.href)} \\
  -H 'Authorization: Bearer pxy_…' \\
  -H 'Content-Type: application/json' \\
  -d '{"prompt": "a lighthouse at night by the sea"}'`;

let typing;
input.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(search, TYPING_PAUSE);
});
byId("search").addEventListener("submit", (event) => {
  event.preventDefault();
  clearTimeout(typing);
  search();
});
more.addEventListener("click", showNextPage);
byId("retry").addEventListener("click", () => lastAttempt());
showFirstPage();
