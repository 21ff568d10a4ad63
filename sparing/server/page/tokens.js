// The tokens of a run: shaded by importance, marked by origin, struck out when evicted. Always as
// text, never as HTML. `draw` draws the changes, once a frame.

const LEVELS = 5; // of importance
// A predicted importance is log(1 + attention from later tokens / its mean): 0.69 for the mean.
const LEAST = 0.45;
const MOST = 1.35;
const SHOWN = 40; // a growing thought scrolls along if its end is this near, in pixels
const ORIGINS = {
  model: "from the full model",
  draft: "drafted, and accepted by the full model",
  forced: "forced, not chosen by the model",
  latent: "a latent step, its likeliest words",
};

/** 0 (unknown, or least) to LEVELS. */
export function level(score) {
  if (score === null) return 0;
  const part = (score - LEAST) / (MOST - LEAST);
  return Math.max(0, Math.min(LEVELS, Math.ceil(part * LEVELS)));
}

const word = (top) => `~${top.length ? top[0][0].trim() || "␣" : ""}`;

/** A token's description. */
export function about(said) {
  const parts = [ORIGINS[said.origin], `position ${said.position}`];
  if (said.origin === "latent") {
    const words = said.top.map(([text, p]) => `“${text.trim()}” ${Math.round(100 * p)}%`);
    parts[0] = `${ORIGINS.latent}: ${words.join(", ") || "none"}`;
  } else if (said.confidence !== null) {
    parts.push(`the likeliest token had ${Math.round(100 * said.confidence)}%`);
  }
  if (said.score !== null) parts.push(`importance ${said.score.toFixed(2)}`);
  if (said.gone !== null) parts.push(`evicted at position ${said.gone}`);
  const shown = said.origin === "latent" ? "" : `“${said.text.replace(/\n/g, "⏎")}” `;
  return shown + parts.join(" · ");
}

export class TokenView {
  /** `root`: holds .question, .thought and .answer; `tell`: called with a token's description. */
  constructor(root, tell) {
    this.places = Object.fromEntries(
      ["question", "thought", "answer"].map((name) => [name, root.querySelector(`.${name}`)]),
    );
    this.tell = tell;
    this.clear(null);
    root.addEventListener("pointerover", (event) => this.point(event.target.closest("[data-at]")));
    root.addEventListener("click", (event) => this.point(event.target.closest("[data-at]")));
    this.places.thought.addEventListener("keydown", (event) => this.walk(event));
  }

  clear(run) {
    this.run = run;
    this.drawn = 0;
    this.elements = [];
    this.at = null;
    for (const place of Object.values(this.places)) place.replaceChildren();
    this.places.answer.classList.remove("over");
    if (run?.state) this.ask(run.state.prompt);
  }

  ask(prompt) {
    const line = document.createElement("p");
    this.asked = prompt.map(({ text }) => {
      const token = document.createElement("span");
      token.className = "token asked";
      token.textContent = text;
      return token;
    });
    line.append(...this.asked);
    this.places.question.replaceChildren(line);
  }

  draw() {
    const { run } = this;
    if (!run) return;
    const thought = this.places.thought;
    const follows = thought.scrollHeight - thought.scrollTop - thought.clientHeight < SHOWN;
    for (const said of run.changed) if (said.index < this.drawn) this.mark(said);
    run.changed.clear();
    for (; this.drawn < run.said.length; this.drawn += 1) this.append(run.said[this.drawn]);
    for (const position of run.forgotten) this.asked?.[position]?.classList.add("gone");
    if (run.done && !this.places.answer.classList.contains("over")) this.end();
    if (follows) thought.scrollTop = thought.scrollHeight;
  }

  append(said) {
    const element = document.createElement("span");
    element.dataset.at = said.index;
    element.textContent = said.origin === "latent" ? word(said.top) : said.text;
    if (said.origin === "latent") element.title = about(said);
    this.elements[said.index] = element;
    this.mark(said);
    const place = this.places[said.kind];
    const line = this.line(place, said.text);
    line.append(element);
    // hide empty lines between a thought and its answer
    if (line.dataset.full) line.hidden = !place.textContent.trim();
  }

  /** The paragraph for a token; the end of a line begins a new one, to keep them short. */
  line(place, text) {
    let line = place.lastElementChild;
    if (!line || line.dataset.full) {
      line = document.createElement("p");
      place.append(line);
    }
    if (text.includes("\n")) line.dataset.full = "yes";
    return line;
  }

  mark(said) {
    const names = ["token", said.origin === "latent" ? "wordless" : said.origin];
    if (level(said.score)) names.push(`i${level(said.score)}`);
    if (said.gone !== null) names.push("gone");
    if (this.at === said.index) names.push("at");
    this.elements[said.index].className = names.join(" ");
  }

  end() {
    this.places.answer.classList.add("over");
    if (this.run.tail) this.line(this.places.answer, "").append(this.run.tail);
  }

  point(element) {
    if (!element) return;
    const before = this.at;
    this.at = Number(element.dataset.at);
    for (const index of [before, this.at]) {
      if (this.run.said[index] && this.elements[index]) this.mark(this.run.said[index]);
    }
    this.tell(about(this.run.said[this.at]));
  }

  walk(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step || !this.drawn) return;
    event.preventDefault();
    const next = this.at === null ? 0 : this.at + step;
    const element = this.elements[Math.max(0, Math.min(this.drawn - 1, next))];
    this.point(element);
    element.scrollIntoView({ block: "nearest" });
  }
}
