"use strict";
// Draws the page from the JSON in #data. Text from models only ever becomes text nodes.

const SVG = "http://www.w3.org/2000/svg";
const STEP = 40; // rollouts listed at once
const MAIN = ["reward", "loss", "groups_with_variance", "entropy", "truncated", "unscored"];
const state = { outcome: "", slice: "", text: "", colour: "log-prob", shown: STEP };
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
  const open = [...document.querySelectorAll("details[open][data-key]")].map((node) => node.dataset.key);
  const place = window.scrollY;
  document.getElementById("page").replaceChildren(
    header(), verdict(), ...(data.top && data.top.length ? [facts(data.top)] : []),
    ...(data.rules || []).map((table) => section(table.title, tabular(table))),
    ...(data.curves.some((curve) => curve.eval) ? [section("Evals", curves(true))] : []),
    ...(data.gates.length ? [section("Gates", ...data.gates.map(gate))] : []),
    ...data.heat.map((map) => section(map.title, heat(map))),
    ...data.tables.map((table) => section(table.title, tabular(table))),
    ...(data.curves.some((curve) => !curve.eval) ? [training()] : []),
    ...(data.lengths ? [section("Lengths and calibration", el("div", { class: "grid wide" }, lengths(), calibration()))] : []),
    ...(data.rollouts.length ? [section("Rollouts", browser())] : []),
    section("What was measured", facts(data.facts)),
  );
  for (const node of document.querySelectorAll("details[data-key]")) node.open = open.includes(node.dataset.key);
  window.scrollTo(0, place);
}

function header() {
  return el("header", {}, el("h1", {}, data.title), data.live ? el("span", { class: "dim" }, "live") : null,
    el("button", { onclick: flip, title: "dark or light" }, "◐"));
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
  return section("Training", curves(false, first), rest ? el("details", { "data-key": "training" },
    el("summary", {}, `${rest} more metrics`), curves(false, (curve) => !first(curve))) : null);
}
function curves(ofEvals, wanted = () => true) {
  const chosen = data.curves.filter((curve) => curve.eval === ofEvals && curve.points.length && wanted(curve));
  return el("div", { class: ofEvals ? "grid wide" : "grid" }, ...chosen.map((curve) =>
    el("div", { class: "card" }, el("span", {}, curve.name), " ",
      el("span", { class: "dim" }, number(curve.points.at(-1)[1])), chart(curve.points, ofEvals, curve.marked || []))));
}
function chart(points, dots, marked) {
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
  return svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img" },
    ...[y0, (y0 + y1) / 2, y1].flatMap((y) => [
      svg("line", { class: "axis", x1: L, x2: W - 8, y1: Y(y), y2: Y(y) }),
      svg("text", { x: L - 5, y: Y(y) + 4, "text-anchor": "end" }, number(y, y1 - y0 < 0.1 ? 3 : 2)),
    ]),
    svg("text", { x: L, y: H - 2 }, String(x0)), svg("text", { x: W - 8, y: H - 2, "text-anchor": "end" }, `step ${x1}`),
    band.length ? svg("polygon", { class: "band", points: band.map(([x, y]) => `${X(x)},${Y(y)}`).join(" ") }) : null,
    svg("polyline", { class: "curve", points: line }),
    ...(dots ? points.map((p) => svg("circle", { class: marked.includes(p[0]) ? "good" : "dot", cx: X(p[0]), cy: Y(p[1]), r: marked.includes(p[0]) ? 5 : 3.2 },
      svg("title", {}, `step ${p[0]}: ${number(p[1])} [${number(p[2])}, ${number(p[3])}]${marked.includes(p[0]) ? ", promoted" : ""}`))) : []));
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
  return svg("svg", { viewBox: `0 0 300 ${rows.length * 30}`, role: "img" }, ...rows.flatMap((row, i) => {
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
  return el("div", { class: "card scroll" }, el("table", { class: "heat" },
    el("tr", {}, el("th", {}, ""), ...map.columns.map((name, i) => el("th", { class: i === map.marked ? "shipped" : "" }, i === map.marked ? `${name} ★` : name)), el("th", {}, "tasks")),
    ...map.rows.map((row) => el("tr", {}, el("td", {}, row.label),
      ...row.cells.map((cell) => cell && cell.mean !== null
        ? el("td", { style: `background:${shade(cell.mean)}`, title: cell.se === null ? "" : `± ${number(cell.se)}` }, number(cell.mean, 2))
        : el("td", { class: "dim" }, "–")),
      el("td", { class: "dim" }, String(row.tasks))))));
}
function tabular(table) {
  const cell = (value) => (typeof value === "string" ? el("td", { class: "left" }, value) : el("td", {}, number(value)));
  return el("div", { class: "card scroll" }, el("table", {},
    el("tr", {}, ...table.head.map((name) => el("th", {}, name))),
    ...table.rows.map((row) => el("tr", {}, ...row.map(cell)))));
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
    svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img" }, ...bars,
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
    svg("svg", { viewBox: `0 0 430 ${S}`, role: "img" },
      svg("line", { class: "axis", x1: X(0), y1: Y(0), x2: X(1), y2: Y(1) }),
      svg("line", { class: "axis", x1: X(0), y1: Y(0), x2: X(1), y2: Y(0) }), svg("line", { class: "axis", x1: X(0), y1: Y(low), x2: X(0), y2: Y(1) }),
      ...[...new Set([low, 0, 1])].map((y) => svg("text", { x: X(0) - 5, y: Y(y) + 4, "text-anchor": "end" }, String(y))),
      svg("text", { x: X(1), y: Y(low) + 16, "text-anchor": "end" }, "confidence 1"),
      ...data.calibration.map((bin) => svg("circle", { class: "dot", cx: X(bin.confidence), cy: Y(bin.score), r: 2.5 + 6 * Math.sqrt(bin.count / most), "fill-opacity": 0.75 },
        svg("title", {}, `confidence ${number(bin.confidence, 2)}, score ${number(bin.score, 2)}, ${bin.count} rollouts`)))));
}

const kindOf = (row) => (row.score === null ? "not scored" : row.outcome || (row.score >= 1 ? "right" : "wrong"));
function matching() {
  const wanted = state.text.toLowerCase();
  return data.rollouts.filter((row) =>
    (!state.outcome || kindOf(row) === state.outcome || (state.outcome === "right" && row.score >= 1) || (state.outcome === "wrong" && row.score !== null && row.score < 1)) &&
    (!state.slice || row.slices.includes(state.slice)) &&
    (!wanted || row.task.toLowerCase().includes(wanted) || row.messages.some((message) => message.text.toLowerCase().includes(wanted))));
}
function browser() {
  const list = el("div", { id: "rollouts" });
  const count = el("span", { class: "dim", id: "count" });
  const fill = () => {
    const rows = matching();
    const held = data.rollouts.reduce((sum, row) => sum + (row.count || 1), 0);
    const part = held < data.rollouts_in_all ? `; the page holds ${held} of ${data.rollouts_in_all}` : "";
    count.textContent = `${rows.reduce((sum, row) => sum + (row.count || 1), 0)} rollouts${part}`;
    list.replaceChildren(...rows.slice(0, state.shown).map(rollout),
      ...(rows.length > state.shown ? [el("button", { onclick: () => { state.shown += STEP; fill(); } }, `${rows.length - state.shown} more`)] : []));
  };
  const choose = (name, options, title) => el("select", { title, onchange: (event) => { state[name] = event.target.value; state.shown = STEP; fill(); } },
    ...options.map(([value, label]) => el("option", { value, selected: state[name] === value ? "" : null }, label)));
  const outcomes = ["right", "wrong", "won", "lost", "not scored"].filter((kind) => data.rollouts.some((row) => kindOf(row) === kind || (kind === "right" && row.score >= 1) || (kind === "wrong" && row.score !== null && row.score < 1)));
  const slices = [...new Set(data.rollouts.flatMap((row) => row.slices))].sort().slice(0, 500);
  const colours = ["log-prob", "advantage", "nothing", ...(data.rollouts.some((row) => row.stream) ? ["loss mask"] : [])];
  fill();
  return el("div", { class: "card" }, el("div", { class: "filters" },
    choose("outcome", [["", "every outcome"], ...outcomes.map((kind) => [kind, kind])], "outcome"),
    slices.length ? choose("slice", [["", "every slice"], ...slices.map((name) => [name, name])], "slice") : null,
    choose("colour", colours.map((name) => [name, `colour: ${name}`]), "token colours"),
    el("input", { placeholder: "search", value: state.text, oninput: (event) => { state.text = event.target.value; state.shown = STEP; fill(); } }),
    count), list);
}
function rollout(row) {
  const kind = kindOf(row);
  const last = row.messages.findLast((message) => message.role === "assistant");
  const body = el("div");
  const filled = () => { if (node.open && !body.childNodes.length) body.append(...turns(row).filter((part) => part !== null)); };
  const key = `${row.env}/${row.task}/${row.sample}/${row.step}/${row.advantage}`;
  const node = el("details", { class: "rollout", "data-key": key, ontoggle: filled },
    el("summary", {},
      el("span", { class: `tag ${row.score === null ? "" : tone(row.outcome ? row.outcome === "won" : row.score >= 1)}` }, row.count > 1 ? `${kind} × ${row.count}` : kind), el("span", {}, row.task),
      el("span", { class: "dim" }, row.reason || (last ? last.text : "")),
      el("span", {}, row.score === null ? "" : `score ${number(row.score, 2)}`), el("span", { class: "dim" }, `${row.tokens} tok`)),
    body);
  return node;
}
function turns(row) {
  const notes = [...Object.entries(row.parts).map(([name, value]) => `${name} ${number(value, 2)}`), ...row.slices];
  if (row.advantage !== null) notes.unshift(`advantage ${number(row.advantage, 2)}`);
  const head = el("p", { class: "dim" }, notes.join(" · "));
  if (state.colour === "loss mask" && row.stream) return [head, ...row.stream.map(stream)];
  return [head, row.fields ? answer(row.fields) : null, ...row.messages.map((message) =>
    el("div", { class: `turn ${message.role}` }, el("small", {}, message.role), text(message, row),
      ...(message.tools || []).map((call) => el("pre", {}, `call ${JSON.stringify(call.function || call, null, 1)}`))))];
}
function answer(fields) { // the right answer beside the model's: what differs, and how much is the same
  const differing = fields.filter((field) => !field.same);
  const cell = (value) => el("td", { class: "left" }, value === null ? el("span", { class: "dim" }, "not there") : value);
  const same = fields.length - differing.length;
  return el("div", { class: "scroll answer" }, el("table", {},
    el("tr", {}, el("th", {}, ""), el("th", { class: "left" }, "the model wrote"), el("th", { class: "left" }, "right is")),
    ...differing.map((field) => el("tr", { class: "differs" }, el("td", {}, field.name), cell(field.wrote), cell(field.right)))),
    same ? el("p", { class: "dim" }, `${same} of ${fields.length} fields the same: ${fields.filter((field) => field.same).map((field) => field.name).join(", ")}`) : null);
}
function stream(runs) { // every token of a segment; those that carry a loss are marked
  const mark = (trained) => ([piece, logprob]) => el("span", {
    class: trained ? "trained" : "given", title: trained ? `trained, log-prob ${number(logprob, 2)}` : "given: no loss" }, piece);
  return el("div", { class: "turn" }, el("small", {}, "every token: marked ones carry the loss"),
    el("pre", { class: "stream" }, ...runs.flatMap((run) => run.tokens.map(mark(run.trained)))));
}
function text(message, row) {
  if (!message.tokens || state.colour === "nothing") return el("pre", {}, message.text);
  return el("pre", {}, ...message.tokens.map(([piece, logprob]) =>
    el("span", { style: `background:${tint(logprob, row.advantage)}`, title: `log-prob ${number(logprob, 2)}` }, piece)), message.cut ? " …" : null);
}
function tint(logprob, advantage) {
  if (state.colour === "advantage") {
    const strength = Math.min(Math.abs(advantage || 0) / 2, 1) * 0.6;
    return `rgb(${advantage < 0 ? "var(--warm)" : "var(--cool)"} / ${strength.toFixed(2)})`;
  }
  return `rgb(var(--warm) / ${(0.7 * (1 - Math.exp(logprob))).toFixed(2)})`;
}

async function refresh() {
  try {
    const answer = await fetch("data.json", { cache: "no-store" });
    if (answer.ok) {
      const fresh = await answer.text();
      if (fresh !== refresh.last && !document.querySelector("details[open], input:focus, select:focus")) {
        refresh.last = fresh;
        data = JSON.parse(fresh);
        draw();
      }
    }
  } catch { /* the server is gone: keep what is drawn */ }
  setTimeout(refresh, 3000);
}

draw();
if (data.live) refresh();
