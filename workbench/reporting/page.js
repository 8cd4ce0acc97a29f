"use strict";
// What the page can do where scripts may run: tables are sorted and filtered, answers are browsed, tokens say their
// values. Without it everything is there to be read. It only reads what stands on the page and writes texts; nothing
// that a model wrote is ever taken as HTML, and there is no network.

const FILTER_FROM = 8; // rows from which a table gets a filter
const CHOICES_FROM = 20; // rows from which its columns of few words get a choice each
const MOST_CHOICES = 40;
const AT_ONCE = 20; // prompts of the browser shown at once

function make(tag, attributes = {}, ...inside) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...inside);
  return node;
}

const labelled = (words, control) => make("label", {}, words, control);
const distinct = (values) => [...new Set(values)];

function choice(words, all, values) {
  const select = make("select", {}, make("option", { value: "" }, all));
  values.forEach((value, place) => select.append(make("option", { value: place + 1 }, value)));
  return { box: labelled(words, select), select, value: () => (select.value ? values[select.value - 1] : null) };
}

// ---- tables

const NONE = "\u2013";

function keyOf(row, column) {
  const cell = row.cells[column];
  const words = cell ? cell.textContent.trim() : "";
  return { row, words, empty: words === "" || words === NONE, n: cell && cell.dataset.n ? Number(cell.dataset.n) : null };
}

// Numbers before words, and what was not measured last, whichever way the column is sorted.
function order(sign) {
  return (a, b) => {
    if (a.empty || b.empty) return a.empty - b.empty;
    if (a.n !== null && b.n !== null) return sign * (a.n - b.n);
    if (a.n !== null || b.n !== null) return a.n !== null ? -1 : 1;
    return sign * a.words.localeCompare(b.words, "en", { numeric: true });
  };
}

function sortable(table, rows) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = make("button", { type: "button", class: "sort" }, ...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const next = { ascending: "descending", descending: null }[head.getAttribute("aria-sort")];
      const way = next === undefined ? "ascending" : next;
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      if (way) head.setAttribute("aria-sort", way);
      const keys = rows.map((row) => keyOf(row, column));
      if (way) keys.sort(order(way === "ascending" ? 1 : -1));
      table.tBodies[0].append(...keys.map((key) => key.row));
    });
  });
}

function filterable(box, table, rows) {
  const search = make("input", { type: "search", placeholder: "words, all of them", spellcheck: "false" });
  const status = make("output", { "aria-live": "polite" });
  const tools = make("div", { class: "tools" }, labelled("rows with", search));
  const choices = [];
  if (rows.length >= CHOICES_FROM) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const keys = rows.map((row) => keyOf(row, column));
      const values = distinct(keys.map((key) => key.words));
      if (values.length < 2 || values.length > Math.min(MOST_CHOICES, rows.length / 2)) return;
      if (keys.some((key) => key.n !== null || key.words.length > 40)) return;
      choices.push([column, choice(head.textContent, "any", values.sort())]);
    });
  }
  const texts = new Map();
  const textOf = (row) => texts.get(row) ?? texts.set(row, row.textContent.toLowerCase()).get(row);
  const update = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const fits = words.every((word) => textOf(row).includes(word))
        && choices.every(([column, one]) => one.value() === null || keyOf(row, column).words === one.value());
      row.hidden = !fits;
      shown += fits;
    }
    status.textContent = shown === rows.length ? "" : `${shown} of ${rows.length} rows`;
  };
  search.addEventListener("input", update);
  for (const [, one] of choices) {
    tools.append(one.box);
    one.select.addEventListener("change", update);
  }
  tools.append(status);
  box.before(tools);
}

for (const box of document.querySelectorAll(".table")) {
  const table = box.querySelector("table");
  const rows = [...table.tBodies[0].rows];
  if (rows.length > 1) sortable(table, rows);
  if (rows.length >= FILTER_FROM) filterable(box, table, rows);
}

// ---- the browser of answers

function browser(section) {
  const asked = [...section.querySelectorAll(".asked")];
  const said = asked.map((one) => [...one.querySelectorAll(".said")]);
  const nameOf = (answer) => answer.dataset.condition;
  const names = distinct(said.flat().map(nameOf));
  const first = new Set(said.flat().filter((answer) => "first" in answer.dataset).map(nameOf));
  const texts = asked.map((one) => one.textContent.toLowerCase());

  const boxes = new Map(names.map((name) => {
    const box = make("input", { type: "checkbox" });
    box.checked = first.has(name);
    return [name, box];
  }));
  const conditions = make("fieldset", {}, make("legend", {}, "side by side"));
  for (const [name, box] of boxes) conditions.append(make("label", {}, box, name));

  const search = make("input", { type: "search", placeholder: "in prompts and answers", spellcheck: "false" });
  const category = choice("with an answer that is", "anything", distinct(said.flat().map((a) => a.dataset.kind)).sort());
  const facts = distinct([...section.querySelectorAll("[data-fact]")].map((fact) => fact.dataset.fact));
  const factOf = (one, name) => [...one.querySelectorAll("[data-fact]")].find((f) => f.dataset.fact === name)?.textContent ?? NONE;
  const chosen = facts.map((name) => [name, choice(name, "any", distinct(asked.map((one) => factOf(one, name))).sort())])
    .filter(([, one]) => one.select.options.length > 2 && one.select.options.length <= 60);
  const differ = make("input", { type: "checkbox" });
  const measures = distinct([...section.querySelectorAll("[data-measure]")].map((score) => score.dataset.measure));
  const sorting = choice("order", "as asked", measures.flatMap((name) => [`lowest ${name}`, `highest ${name}`]));
  const status = make("output", { "aria-live": "polite" });
  const more = make("button", { type: "button", class: "plain" }, "show more");

  const visible = (place) => said[place].filter((answer) => boxes.get(nameOf(answer)).checked);
  const scoresOf = (place, measure) => visible(place)
    .flatMap((answer) => [...answer.querySelectorAll("[data-measure]")])
    .filter((score) => score.dataset.measure === measure && score.dataset.n !== undefined)
    .map((score) => Number(score.dataset.n));

  let limit = AT_ONCE;
  function ordered(places) {
    const found = sorting.value();
    if (found === null) return places;
    const [side, ...rest] = found.split(" ");
    const measure = rest.join(" ");
    const sign = side === "lowest" ? 1 : -1;
    const keys = new Map(places.map((place) => {
      const scores = scoresOf(place, measure);
      return [place, scores.length ? (sign > 0 ? Math.min(...scores) : -Math.max(...scores)) : Infinity];
    }));
    return [...places].sort((a, b) => keys.get(a) - keys.get(b) || a - b);
  }
  function fits(place) {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    if (!words.every((word) => texts[place].includes(word))) return false;
    if (!chosen.every(([name, one]) => one.value() === null || factOf(asked[place], name) === one.value())) return false;
    const kinds = visible(place).map((answer) => answer.dataset.kind);
    if (category.value() !== null && !kinds.includes(category.value())) return false;
    return !differ.checked || new Set(kinds).size > 1;
  }
  function update() {
    said.flat().forEach((answer) => { answer.hidden = !boxes.get(nameOf(answer)).checked; });
    const fitting = ordered(asked.map((_, place) => place).filter(fits));
    asked.forEach((one) => { one.hidden = true; });
    for (const place of fitting.slice(0, limit)) asked[place].hidden = false;
    section.append(...fitting.map((place) => asked[place]), more);
    status.textContent = `${fitting.length} of ${asked.length} prompts`;
    more.hidden = fitting.length <= limit;
    mark(section, search.value);
  }
  const again = () => { limit = AT_ONCE; update(); };
  more.addEventListener("click", () => { limit += AT_ONCE; update(); });
  search.addEventListener("input", again);
  const controls = [...boxes.values(), category.select, differ, sorting.select, ...chosen.map(([, one]) => one.select)];
  for (const control of controls) control.addEventListener("change", again);
  const tools = make("div", { class: "tools" }, conditions, labelled("search", search), category.box,
    ...chosen.map(([, one]) => one.box), make("label", {}, differ, "only where they differ"));
  if (measures.length) tools.append(sorting.box);
  tools.append(status);
  asked[0].before(tools);
  update();
}

// The words that were searched for, marked without touching the texts.
function mark(section, value) {
  if (!window.Highlight || !CSS.highlights) return;
  const words = value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = new Highlight();
  const walker = document.createTreeWalker(section, NodeFilter.SHOW_TEXT);
  while (words.length && walker.nextNode() && found.size < 2000) {
    const node = walker.currentNode;
    if (!node.parentElement.closest(".text, h3") || node.parentElement.closest("[hidden]")) continue;
    const text = node.data.toLowerCase();
    for (const word of words) {
      for (let at = text.indexOf(word); at >= 0; at = text.indexOf(word, at + word.length)) {
        const range = new Range();
        range.setStart(node, at);
        range.setEnd(node, Math.min(at + word.length, node.length));
        found.add(range);
      }
    }
  }
  CSS.highlights.set("found", found);
}

for (const section of document.querySelectorAll(".answers")) if (section.querySelector(".said")) browser(section);

// ---- tokens that say their values, to the mouse and to the arrow keys

for (const line of document.querySelectorAll(".tokens")) {
  const tokens = [...line.querySelectorAll("span")];
  const readout = make("output", { class: "readout", "aria-live": "polite" });
  line.after(readout);
  line.tabIndex = 0;
  line.setAttribute("role", "group");
  line.setAttribute("aria-label", "tokens; arrow keys say the values");
  let at = -1;
  const say = (place) => {
    tokens[at]?.classList.remove("at");
    at = Math.max(0, Math.min(place, tokens.length - 1));
    tokens[at].classList.add("at");
    const { v } = tokens[at].dataset;
    readout.textContent = `token ${at} \u201c${tokens[at].textContent.trim()}\u201d, ${tokens[at].classList[0]}: ${v ?? "not measured"}`;
  };
  line.addEventListener("mouseover", (event) => {
    const place = tokens.indexOf(event.target);
    if (place >= 0) say(place);
  });
  line.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -tokens.length, End: tokens.length }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    say(at + step);
  });
}

// ---- light and dark

const theme = make("button", { type: "button", class: "plain theme" });
const themes = { auto: "light", light: "dark", dark: "auto" };
let now = "auto";
const paint = () => {
  theme.textContent = `colours: ${now}`;
  if (now === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = now;
};
theme.addEventListener("click", () => { now = themes[now]; paint(); });
document.querySelector("main").before(theme);
paint();
