// The timeline of a run: slots in use, with and without evictions, the phases of drafting
// (accumulation, optimization, acceleration), and the drafting layer set.

import { plural } from "./format.js";

const SPAN = 128; // least tokens of the axis
const POINTS = 1000; // most points of a line

export class Timeline {
  constructor(root, layers) {
    this.root = root;
    this.layers = layers;
    this.drawnPhases = -1;
  }

  draw(run) {
    const span = Math.max(run.said.length, run.done ? 1 : SPAN);
    const budget = run.state?.budget ?? 0;
    const top = Math.max(run.full, budget, 1) * 1.08;
    const x = (token) => (1000 * token) / span;
    const y = (slots) => 100 - (100 * slots) / top;
    if (run.said.length) this.lines(run, x, y, budget);
    else for (const path of this.root.querySelectorAll("path")) path.setAttribute("d", "");
    this.root.querySelector(".end").textContent = plural(span, "token");
    this.phases(run, span);
  }

  lines(run, x, y, budget) {
    const every = Math.ceil(run.cache.length / POINTS);
    const turns = run.cache.filter((turn, at) => at % every === 0 || edge(run.cache, at));
    const held = turns.map(([token, slots]) => `${x(token).toFixed(1)} ${y(slots).toFixed(1)}`);
    const end = x(run.said.length).toFixed(1);
    const line = `M0 ${y(run.question)}L${held.join("L")}`;
    this.path("line", line);
    this.path("held", `${line}L${end} 100L0 100Z`);
    this.path("full", `M0 ${y(run.question)}L${end} ${y(run.full)}L${end} 100L0 100Z`);
    this.path("limit", budget ? `M0 ${y(budget)}L1000 ${y(budget)}` : "");
  }

  path(name, d) {
    this.root.querySelector(`path.${name}`).setAttribute("d", d);
  }

  phases(run, span) {
    const strip = this.root.querySelector(".phases");
    // A tuned set is told from the beginning, whether or not it ever drafts.
    const shown = run.drafted > 0 || run.phases.some(({ phase }) => phase !== "acceleration");
    this.root.classList.toggle("unphased", !shown);
    if (run.phases.length !== this.drawnPhases) {
      this.drawnPhases = run.phases.length;
      strip.replaceChildren(...run.phases.map(({ phase }) => {
        const part = document.createElement("i");
        part.className = phase;
        return part;
      }));
      this.set(run.phases.at(-1));
    }
    [...strip.children].forEach((part, at) => {
      const { from } = run.phases[at];
      const to = run.phases[at + 1]?.from ?? run.said.length;
      part.style.left = `${(100 * from) / span}%`;
      part.style.width = `${(100 * (to - from)) / span}%`;
    });
    strip.dataset.told = run.done && !(shown && run.phases.length) ? "no layers were skipped" : "";
  }

  /** Show the layer set: a cell for each attention and each MLP, hollow if drafts skip it. */
  set(told) {
    const place = this.root.querySelector(".layers");
    place.hidden = !told || !this.layers;
    if (place.hidden) return;
    const skipped = new Set(told.skipped);
    const cells = ["attention", "mlp"].flatMap((kind) =>
      Array.from({ length: this.layers }, (_, layer) => {
        const cell = document.createElement("i");
        cell.className = skipped.has(`${kind}.${layer}`) ? "skipped" : "";
        cell.title = `${kind} of layer ${layer}`;
        return cell;
      }),
    );
    const grid = place.querySelector(".grid");
    grid.style.setProperty("--layers", this.layers);
    grid.replaceChildren(...cells);
    const agrees = `${(100 * told.matchness).toFixed(1)}% agree with the full model`;
    place.querySelector("p").textContent = skipped.size
      ? `Drafts skip ${skipped.size} of ${2 * this.layers} sub-layers; ${agrees}`
      : "No layers are skipped yet";
  }
}

/** Whether an eviction begins or ends at this point, or the line ends. */
function edge(cache, at) {
  const [token] = cache[at];
  return token === cache[at - 1]?.[0] || token === cache[at + 1]?.[0] || at === cache.length - 1;
}
