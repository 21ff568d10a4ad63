// The table that compares two runs.

import { count, factor, megabytes, rate, seconds } from "./format.js";

/** Rows: a name, the number of a run, its text. `slotBytes`: bytes of a token in the cache. */
const rows = (slotBytes) => [
  ["Time", (s) => s.seconds, seconds],
  ["Speed, tokens/s", (s) => s.tokens_per_second, rate],
  ["Tokens", (s) => s.new_tokens, count],
  ["KV cache in use at most, MB", (s) => s.slots_peak * slotBytes, megabytes],
  ["KV cache reserved at most, MB", (s) => s.kv_bytes_peak, megabytes],
];

/** Show a table of two runs' stats and answers. */
export function compared(place, names, [a, b], answers, slotBytes) {
  const table = element("table");
  table.append(element("caption", "Two runs, one after the other on the same machine"));
  const head = element("tr");
  head.append(...["", ...names, "Difference"].map((text) => scoped("th", text, "col")));
  const body = element("tbody");
  for (const [name, of, shown] of rows(slotBytes)) {
    const row = element("tr");
    row.append(scoped("th", name, "row"), ...[a, b].map((stats) => cell(of(stats), [a, b].map(of), shown)));
    row.append(element("td", factor(of(a), of(b))));
    body.append(row);
  }
  const last = element("tr");
  last.append(scoped("th", "Answer", "row"), ...answers.map((text) => element("td", text.trim() || "none")));
  const same = answers[0].trim() === answers[1].trim();
  last.append(element("td", same ? "the same" : `different${why(a)}`));
  last.className = "answers";
  body.append(last);
  const top = element("thead");
  top.append(head);
  table.append(top, body);
  place.replaceChildren(table);
  place.hidden = false;
}

/** What in a run can have changed its answer; drafts change no token. */
function why(stats) {
  const causes = [];
  if (stats.evicted_tokens) causes.push("forgetting");
  if (stats.latent_tokens) causes.push("latent steps");
  return causes.length ? `: ${causes.join(" or ")} changed it` : "";
}

function cell(value, both, shown) {
  const found = element("td");
  const bar = element("i");
  bar.style.width = `${(100 * value) / Math.max(...both, 1e-9)}%`;
  found.append(element("b", shown(value)), bar);
  return found;
}

function scoped(name, text, scope) {
  const found = element(name, text);
  found.scope = scope;
  return found;
}

function element(name, text = "") {
  const found = document.createElement(name);
  found.textContent = text;
  return found;
}
