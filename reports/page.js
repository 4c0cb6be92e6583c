"use strict";
// Draws the page from the JSON in #data. Text from models only ever becomes text nodes.

const SVG = "http://www.w3.org/2000/svg";
const STEP = 40; // rollouts listed at once
const MAIN = ["reward", "loss", "groups_with_variance", "entropy", "truncated", "unscored"];
const LATEST = 6; // gates shown before the others are folded
const state = { outcome: "", rule: "", mistake: "", slice: "", text: "", colour: "log-prob", shown: STEP };
const views = { story }; // a page draws itself by the view that its data names
let data = JSON.parse(document.getElementById("data").textContent);

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  return filled(node, attributes, children);
}
function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}
function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}
function number(value, digits = 3) {
  if (value === null || value === undefined) return "";
  const size = Math.abs(value);
  return size >= 1000 ? value.toFixed(0) : size && size < 0.5 * 10 ** -digits ? value.toExponential(1) : value.toFixed(digits);
}
const section = (title, ...children) => el("section", {}, el("h2", {}, title), ...children);

function draw() {
  document.title = data.title;
  const page = document.getElementById("page");
  const open = [...page.querySelectorAll("details[open][data-key]")].map((node) => node.dataset.key);
  const focused = document.activeElement?.closest("[data-key]")?.dataset.key;
  const active = document.activeElement;
  const place = window.scrollY;
  page.replaceChildren(header(), ...views[data.view || "story"]().filter((part) => part));
  for (const node of page.querySelectorAll("details[data-key]")) node.open = open.includes(node.dataset.key) || node.open;
  if (active && active.isConnected) active.focus();
  else if (focused) [...page.querySelectorAll("[data-key]")].find((node) => node.dataset.key === focused)?.querySelector("summary")?.focus();
  window.scrollTo(0, place);
}
function story() { // what a rule owner asks first stands first
  const confusions = [...(data.confusions || []), ...(data.field_confusions || [])];
  const answers = document.getElementById("answers");
  const inUse = answers && (answers.contains(document.activeElement) || answers.querySelector("details[open]"));
  return [
    verdict(), data.top && data.top.length ? facts(data.top) : null,
    ...(data.rules || []).map((table) => section(table.title, tabular(table, byRule))),
    data.curves.some((curve) => curve.eval) ? section("Evals", curves(true)) : null,
    ...(data.pairs || []).map((table) => section(table.title, tabular(table))),
    confusions.length ? section("Confusion", el("p", { class: "dim" }, "Rows are right, columns are what the model said; a wrong cell counts answers that took one for the other."),
      el("div", { class: "grid wide" }, ...confusions.map(confusion))) : null,
    inUse ? answers : data.rollouts.length ? el("section", { id: "answers" }, el("h2", {}, "Rollouts"), browser()) : null,
    data.gates.length ? section("Gates", ...gates()) : null,
    ...data.heat.map((map) => section(map.title, heat(map))),
    data.curves.some((curve) => !curve.eval) ? training() : null,
    ...data.tables.map((table) => section(table.title, tabular(table))),
    data.lengths ? section("Lengths and calibration", el("div", { class: "grid wide" }, lengths(), calibration())) : null,
    section("What was measured", facts(data.facts)),
  ];
}

function header() {
  const links = (data.nav || []).map(([label, href, here]) => el("a", { href, "aria-current": here ? "page" : null }, label));
  return el("header", {}, links.length ? el("nav", { "aria-label": "studio" }, ...links) : null,
    el("h1", {}, data.title), data.live ? el("span", { class: "dim" }, "live") : null,
    el("button", { onclick: flip, title: "dark or light", "aria-label": "dark or light" }, "◐"));
}
function flip() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
}
const tone = (passed) => (passed === true ? "good" : passed === false ? "bad" : "");
function verdict() {
  const { passed, word, text } = data.verdict;
  return el("div", { class: `verdict ${tone(passed)}`, id: "verdict" }, el("b", {}, word), el("p", {}, text));
}

const facts = (rows) => el("dl", { class: "card" }, ...rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
function training() { // what is read first, and the rest folded
  const first = (curve) => MAIN.includes(curve.name);
  const rest = data.curves.filter((curve) => !curve.eval && !first(curve) && curve.points.length).length;
  return section("Training", curves(false, first), rest ? fold("training", `${rest} more metrics`,
    () => [curves(false, (curve) => !first(curve))]) : null);
}
function curves(ofEvals, wanted = () => true) {
  const chosen = data.curves.filter((curve) => curve.eval === ofEvals && curve.points.length && wanted(curve));
  return el("div", { class: ofEvals ? "grid wide" : "grid" }, ...chosen.map((curve) =>
    el("div", { class: "card" }, el("span", {}, curve.name), " ", el("span", { class: "dim" }, number(curve.points.at(-1)[1])),
      chart(curve.name, curve.points, ofEvals, curve.marked || []), curve.note ? el("p", { class: "note" }, curve.note) : null)));
}
function chart(name, points, dots, marked) {
  const [W, H, L, B] = [420, dots ? 190 : 130, 40, 18];
  const xs = points.map((p) => p[0]);
  const ys = points.flatMap((p) => [p[1], p[2], p[3]]).filter((y) => y !== null && y !== undefined);
  const [x0, x1] = [Math.min(...xs), Math.max(...xs)];
  let [y0, y1] = [Math.min(...ys), Math.max(...ys)];
  if (y0 === y1) [y0, y1] = [y0 - 0.5, y1 + 0.5];
  const X = (x) => L + ((x - x0) / (x1 - x0 || 1)) * (W - L - 8);
  const Y = (y) => 8 + ((y1 - y) / (y1 - y0)) * (H - B - 8);
  const line = points.map((p) => `${X(p[0])},${Y(p[1])}`).join(" ");
  const banded = points.filter((p) => p[2] !== null && p[2] !== undefined);
  const band = [...banded.map((p) => [p[0], p[3]]), ...banded.reverse().map((p) => [p[0], p[2]])];
  const said = `${name}, step ${x0} to ${x1}: from ${number(points[0][1])} to ${number(points.at(-1)[1])}`;
  return svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": said },
    ...[y0, (y0 + y1) / 2, y1].flatMap((y) => [
      svg("line", { class: "axis", x1: L, x2: W - 8, y1: Y(y), y2: Y(y) }),
      svg("text", { x: L - 5, y: Y(y) + 4, "text-anchor": "end" }, number(y, y1 - y0 < 0.1 ? 3 : 2)),
    ]),
    svg("text", { x: L, y: H - 2 }, String(x0)), x1 - x0 > 3 ? svg("text", { x: X((x0 + x1) / 2), y: H - 2, "text-anchor": "middle" }, String(Math.round((x0 + x1) / 2))) : null, svg("text", { x: W - 8, y: H - 2, "text-anchor": "end" }, `step ${x1}`),
    band.length ? svg("polygon", { class: "band", points: band.map(([x, y]) => `${X(x)},${Y(y)}`).join(" ") }) : null,
    svg("polyline", { class: "curve", points: line }),
    ...(dots ? points.map((p) => svg("circle", { class: marked.includes(p[0]) ? "good" : "dot", cx: X(p[0]), cy: Y(p[1]), r: marked.includes(p[0]) ? 5 : 3.2 },
      svg("title", {}, `step ${p[0]}: ${number(p[1])} [${number(p[2])}, ${number(p[3])}]${marked.includes(p[0]) ? ", promoted" : ""}`))) : []));
}

function gates() { // the latest and those that promoted; the others folded
  const shown = data.gates.filter((row, i) => row.verdict === "promoted" || i >= data.gates.length - LATEST);
  const folded = data.gates.filter((row) => !shown.includes(row));
  return [...shown.map(gate), folded.length ? fold("gates", `${folded.length} earlier decisions`, () => folded.map(gate)) : null];
}
function fold(key, title, make) { // drawn when it is opened
  const node = el("details", { "data-key": key, ontoggle: () => { if (node.open && node.childNodes.length < 2) node.append(...make()); } }, el("summary", {}, title));
  return node;
}
function gate(row) {
  const label = row.step === null ? row.suite : `step ${row.step}`;
  return el("div", { class: "gate" },
    el("div", {}, el("div", { class: "dim" }, label), el("span", { class: `tag ${row.verdict === "promoted" ? "good" : "bad"}` }, row.verdict)),
    el("div", {}, el("p", {}, row.reason), el("p", { class: "dim" }, `${row.suite}: ${row.passed ? "passed" : "failed"}`)),
    forest(row.checks));
}
function forest(checks) {
  const rows = checks.filter((check) => check.low !== null);
  if (!rows.length) return el("span");
  return svg("svg", { viewBox: `0 0 300 ${rows.length * 30}`, role: "img", "aria-label": rows.map((row) => `${row.gate}: ${row.reason}`).join("; ") }, ...rows.flatMap((row, i) => {
    const y = i * 30 + 21;
    const [a, b] = reach(row.gate);
    const X = (x) => 6 + ((x - a) / (b - a || 1)) * 288;
    const kind = row.passed ? "good" : "bad";
    return [
      svg("text", { x: 0, y: y - 9 }, row.gate.slice(0, 52)),
      svg("line", { class: "none", x1: X(row.bound), x2: X(row.bound), y1: y - 7, y2: y + 7 }),
      svg("line", { class: kind, x1: X(row.low), x2: X(row.high), y1: y, y2: y, "stroke-width": 2 }),
      svg("circle", { class: kind, cx: X(row.mean), cy: y, r: 3.5 }, svg("title", {}, row.reason)),
    ];
  }));
}

function reach(gate) { // one scale for a gate over all its decisions
  const of = data.gates.flatMap((row) => row.checks).filter((check) => check.gate === gate && check.low !== null);
  const marks = of.flatMap((check) => [check.low, check.high, check.bound, check.champion === null ? check.bound : 0]);
  return [Math.min(...marks), Math.max(...marks)];
}

function heat(map) {
  const shade = (mean) => `rgb(${mean < 0.5 ? "var(--warm)" : "var(--cool)"} / ${(Math.abs(mean - 0.5) * 1.1 + 0.04).toFixed(2)})`;
  return scrolled(map.title, el("table", { class: "heat" },
    el("tr", {}, el("td"), ...map.columns.map((name, i) => el("th", { class: i === map.marked ? "shipped" : "" }, i === map.marked ? `${name} ★` : name)), el("th", {}, "tasks")),
    ...map.rows.map((row) => el("tr", {}, el("th", { scope: "row", class: "left" }, row.label),
      ...row.cells.map((cell) => cell && cell.mean !== null
        ? el("td", { style: `background:${shade(cell.mean)}`, title: cell.se === null ? "" : `± ${number(cell.se)}` }, number(cell.mean, 2))
        : el("td", { class: "dim" }, "–")),
      el("td", { class: "dim" }, String(row.tasks))))));
}
function scrolled(name, table) { // what is wider than the page can be reached by keyboard
  return el("div", { class: "card scroll", tabindex: 0, role: "region", "aria-label": name }, table);
}
function tabular(table, act = () => null) {
  const cell = (value) => (typeof value === "string" ? el("td", { class: "left" }, value) : el("td", {}, number(value)));
  return scrolled(table.title, el("table", {},
    el("tr", {}, ...table.head.map((name) => el("th", { scope: "col", class: "left" }, name))),
    ...table.rows.map((row) => el("tr", {}, el("th", { scope: "row", class: "left" }, row[0], " ", act(row)), ...row.slice(1).map(cell)))));
}
function confusion(table) {
  const most = Math.max(1, ...table.rows.flat());
  const shade = (count, right) => (count ? `background:rgb(${right ? "var(--cool)" : "var(--warm)"} / ${(0.08 + (0.4 * count) / most).toFixed(2)})` : null);
  return scrolled(table.title, el("table", { class: "heat" }, el("caption", {}, table.title),
    el("tr", {}, el("td", { class: "dim" }, "right ↓ said →"), ...table.columns.map((name) => el("th", { scope: "col" }, name))),
    ...table.rows.map((row, i) => el("tr", {}, el("th", { scope: "row", class: "left" }, table.right[i]),
      ...row.map((count, j) => el("td", { style: shade(count, table.columns[j] === table.right[i]) }, count ? String(count) : "·"))))));
}

function lengths() {
  const { width, counts } = data.lengths;
  const kinds = Object.entries(counts).filter(([, bins]) => bins.some((count) => count));
  const bins = counts.right.length;
  const tops = Array.from({ length: bins }, (_, i) => kinds.reduce((sum, [, of]) => sum + of[i], 0));
  const most = Math.max(...tops, 1);
  const [W, H] = [430, 190];
  const bar = (W - 46) / bins;
  const colour = { right: "good", wrong: "bad", "not scored": "none" };
  const bars = Array.from({ length: bins }, (_, i) => {
    let base = H - 20;
    return kinds.map(([kind, of]) => {
      const height = (of[i] / most) * (H - 34);
      base -= height;
      return svg("rect", { class: colour[kind], x: 40 + i * bar, y: base, width: Math.max(1, bar - 2), height, stroke: "none" },
        svg("title", {}, `${of[i]} ${kind}, ${i * width} to ${(i + 1) * width - 1} tokens`));
    });
  }).flat();
  const legend = kinds.map(([kind, of]) => `${of.reduce((a, b) => a + b, 0)} ${kind}`).join(", ");
  return el("div", { class: "card" }, el("span", {}, "Tokens written "), el("span", { class: "dim" }, legend),
    svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `Tokens written: ${legend}` }, ...bars,
      svg("text", { x: 34, y: 18, "text-anchor": "end" }, String(most)), svg("text", { x: 40, y: H - 4 }, "0"),
      svg("text", { x: W - 6, y: H - 4, "text-anchor": "end" }, `${bins * width} tokens`)));
}
function calibration() {
  if (!data.calibration.length) return el("div", { class: "card dim" }, "No log-probs were kept: calibration is not known.");
  const S = 190;
  const X = (x) => 40 + x * (S - 50);
  const low = Math.floor(Math.min(0, ...data.calibration.map((bin) => bin.score)));  // scores may be negative
  const Y = (y) => S - 24 - ((y - low) / (1 - low)) * (S - 40);
  const most = Math.max(...data.calibration.map((bin) => bin.count));
  return el("div", { class: "card" }, el("span", {}, "Calibration "), el("span", { class: "dim" }, "score by confidence (mean token probability)"),
    svg("svg", { viewBox: `0 0 430 ${S}`, role: "img", "aria-label": "score by confidence" },
      svg("line", { class: "axis", x1: X(0), y1: Y(0), x2: X(1), y2: Y(1) }),
      svg("line", { class: "axis", x1: X(0), y1: Y(0), x2: X(1), y2: Y(0) }), svg("line", { class: "axis", x1: X(0), y1: Y(low), x2: X(0), y2: Y(1) }),
      ...[...new Set([low, 0, 1])].map((y) => svg("text", { x: X(0) - 5, y: Y(y) + 4, "text-anchor": "end" }, String(y))),
      svg("text", { x: X(1), y: Y(low) + 16, "text-anchor": "end" }, "confidence 1"),
      ...data.calibration.map((bin) => svg("circle", { class: "dot", cx: X(bin.confidence), cy: Y(bin.score), r: 2.5 + 6 * Math.sqrt(bin.count / most), "fill-opacity": 0.75 },
        svg("title", {}, `confidence ${number(bin.confidence, 2)}, score ${number(bin.score, 2)}, ${bin.count} rollouts`)))));
}

async function refresh() {
  try {
    const answer = await fetch(data.feed, { cache: "no-store", headers: refresh.tag ? { "If-None-Match": refresh.tag } : {} });
    if (answer.ok) {
      refresh.tag = answer.headers.get("ETag");
      data = await answer.json();
      draw();
    }
  } catch { /* the server is gone: keep what is drawn */ }
  setTimeout(refresh, 3000);
}
function start() {
  draw();
  if (data.live) refresh();
}
