// The page: a question, its runs one after the other, and errors in one line.

import { Api } from "./api.js";
import { Column } from "./column.js";
import { compared } from "./compared.js";
import { OFF, Switches } from "./options.js";

const find = (id) => document.getElementById(id);
const api = new Api();
const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
let model = null;
let switches = null;
let asking = null; // {controller, run} while a run can be stopped

function trouble(text) {
  find("trouble").hidden = !text;
  find("trouble").textContent = text ?? "";
}

function say(text) {
  find("said").textContent = text;
}

async function begin() {
  try {
    [model] = (await api.get("/v1/models")).data;
  } catch (error) {
    find("model").textContent = "locked";
    find("key-row").hidden = error.status !== 401;
    if (error.status === 401 && !api.key) find("key").focus();
    else trouble(error.message);
    return;
  }
  trouble(null);
  find("key-row").hidden = true;
  find("links").hidden = Boolean(api.key); // a link cannot send the key
  find("model").textContent = model.id;
  find("model").title = model.id;
  find("dot").className = "dot ready";
  document.title = `Sparing · ${model.id}`;
  switches ??= new Switches(model.sparing);
  await suggest(0).catch((error) => trouble(error.message));
}

async function suggest(seed) {
  const { questions, more } = await api.get(`/v1/examples?seed=${seed}`);
  const others = button("Other questions", () => {
    others.disabled = true;
    suggest(1 + Math.floor(Math.random() * 1e6)).catch((error) => trouble(error.message));
  });
  others.className = "quiet others";
  const chips = questions.map((text) => {
    const chip = button(text, () => {
      find("question").value = text;
      find("question").focus();
      choose();
    });
    chip.title = text;
    return chip;
  });
  find("examples").replaceChildren(...chips, ...(more ? [others] : []));
  if (!find("question").value) find("question").value = questions[0] ?? "";
  choose();
}

/** Offer the examples that do not stand in the question already. */
function choose() {
  for (const chip of find("examples").querySelectorAll("[title]")) {
    chip.hidden = chip.title === find("question").value;
  }
}

function button(text, pressed) {
  const found = document.createElement("button");
  found.type = "button";
  found.textContent = text;
  found.addEventListener("click", pressed);
  return found;
}

/** The runs to make, one after the other, so that each has the whole machine. */
function plans() {
  const first = { title: switches.title, savings: switches.savings };
  const anything = Object.values(switches.on).some(Boolean);
  const second = { title: "Everything off", savings: OFF };
  return anything && find("compare").checked ? [first, second] : [first];
}

async function ask() {
  const question = find("question").value.trim();
  const wrong = question ? switches?.trouble : "A question must have one word or more.";
  trouble(wrong ?? null);
  if (wrong || asking || !model) return;
  asking = { controller: new AbortController(), run: null };
  busy(true);
  const seed = Math.floor(Math.random() * 2 ** 31); // the same for both runs
  const wanted = plans();
  const columns = wanted.map(({ title }) => new Column(title, model, calm));
  find("compared").hidden = true;
  find("columns").replaceChildren(...columns.map(({ root }) => root));
  find("result").hidden = false;
  find("result").scrollIntoView({ block: "start", behavior: calm ? "auto" : "smooth" });
  const done = [];
  try {
    for (const [at, column] of columns.entries()) {
      const { title, savings } = wanted[at];
      asking.run = null;
      const asked = body(question, savings, seed);
      const told = await column.ask(api, asked, asking.controller.signal, (id) => {
        asking.run = id;
        say(`${title}: thinking`);
      });
      done.push({ column, told });
      say(`${title}: the answer is ${column.answer}`);
      if (asking.stopped) break;
    }
    if (done.length === 2) compare(wanted, done);
  } catch (error) {
    failed(error);
  } finally {
    for (const column of columns) column.close();
    asking = null;
    busy(false);
  }
}

function body(question, sparing, seed) {
  return {
    model: model.id,
    messages: [{ role: "user", content: question }],
    max_completion_tokens: switches.most,
    seed,
    sparing,
  };
}

function compare(wanted, done) {
  compared(
    find("compared"),
    wanted.map(({ title }) => title),
    done.map(({ told }) => told.stats),
    done.map(({ column }) => column.answer),
    model.sparing.slot_bytes,
  );
}

function failed(error) {
  if (error.name === "AbortError" || error.code === "cancelled") {
    trouble(asking.stopped ? null : "The run was cancelled from elsewhere.");
    say("Stopped");
    return;
  }
  if (error.status === 401) find("key-row").hidden = false;
  trouble(error.message ?? String(error));
}

/** Stop the run, on the server too if its id is known. */
async function stop() {
  if (!asking || asking.stopped) return;
  asking.stopped = true;
  const { controller, run } = asking;
  try {
    if (run) await api.post(`/v1/runs/${run}/cancel`);
    setTimeout(() => controller.abort(), run ? 1000 : 0);
  } catch {
    controller.abort();
  }
}

function busy(is) {
  find("go").disabled = is;
  find("stop").disabled = !is;
  find("dot").className = is ? "dot busy" : "dot ready";
}

find("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
find("stop").addEventListener("click", stop);
find("unlock").addEventListener("click", () => {
  api.key = find("key").value.trim();
  begin();
});
find("key").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  find("unlock").click();
});
find("question").addEventListener("input", choose);
find("question").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.isComposing || (event.shiftKey && !event.ctrlKey)) return;
  event.preventDefault();
  ask();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
});
begin();
