// The studio's views: runs, evals, environments and rules. Charts, tables and styles are those of reports.

const linked = (path, query, text) => el("a", { href: `/${path}?${new URLSearchParams(query)}` }, text);
const listed = (...items) => el("ul", {}, ...items.filter((item) => item).map((item) => el("li", {}, item)));
const field = (name, control) => el("label", { class: "field" }, el("span", { class: "dim" }, name), control);
async function asked(path, body) { // the server's answer, or a reason
  const answer = await fetch(path, body ? { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) } : {});
  return answer.json().catch(() => ({ error: `the server answered ${answer.status}; its terminal says why` }));
}

views.error = () => [verdict()];

views.runs = () => [
  el("p", { class: "dim" }, `${data.runs.length === 1 ? "1 run" : `${data.runs.length} runs`} in ${data.root}`),
  data.runs.length ? el("div", { class: "grid runs" }, ...data.runs.map(runCard)) : el("p", {}, "None yet. ", el("code", {}, "vertigym train CONFIG.toml"), " makes one; it will show up here."),
];
function runCard(run) {
  const title = el("h2", {}, linked("run", { name: run.name }, run.name));
  if (run.error) return el("article", { class: "card run" }, title, el("p", { class: "tag bad" }, run.error));
  const gate = run.gate ? `${run.gate.verdict} at step ${run.gate.step}` : "no gate yet";
  return el("article", { class: "card run" }, title,
    el("p", {}, el("span", { class: run.status === "stopped" ? "tag" : "tag good" }, run.status), ` · step ${run.steps}`),
    run.points.length > 1 ? sparkline(run) : el("p", { class: "dim" }, "no steps yet"),
    el("dl", {}, ...[["environment", run.env], ["model", run.model], ["last gate", gate], ["ships", run.ships || "nothing yet"]]
      .flatMap(([name, value]) => [el("dt", {}, name), el("dd", { title: name === "last gate" && run.gate ? run.gate.reason : null }, value)])));
}
function sparkline(run) {
  const values = run.points.map((point) => point[1]);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const at = values.map((value, i) => `${(i / (values.length - 1)) * 240},${40 - ((value - low) / (high - low || 1)) * 36}`);
  return el("div", { class: "spark" }, svg("svg", { viewBox: "0 0 240 44", role: "img", "aria-label": `${run.measure} from ${number(values[0])} to ${number(run.last)}` },
    svg("polyline", { class: "curve", points: at.join(" ") })), el("span", {}, `${run.measure} ${number(run.last)}`));
}

views.evals = () => {
  if (!data.groups.length) return [el("p", {}, "No reports yet: a run's evals and folders of vertigym eval -o are listed here.")];
  const groups = (pick) => data.groups.map((group) => el("optgroup", { label: group.name },
    ...group.reports.map(([name, label], i) => el("option", { value: name, selected: pick(group, i) ? "" : null }, label))));
  const newest = (group, i) => group === data.groups[0] && i === group.reports.length - 1;
  return [
    el("p", { class: "dim" }, "Two reports of one suite, compared task by task: paired differences with intervals, by rule, and the answers won and lost."),
    el("form", { action: "/compare", class: "card filters" },
      field("before", el("select", { name: "a" }, ...groups((group, i) => group === data.groups[0] && i === 0))),
      field("after", el("select", { name: "b" }, ...groups(newest))), el("button", {}, "Compare")),
  ];
};

views.environments = () => [scrolled("Environments", el("table", {},
  el("tr", {}, ...["environment", "from", "what it is"].map((name) => el("th", { scope: "col", class: "left" }, name))),
  ...data.environments.map((row) => el("tr", {}, el("th", { scope: "row", class: "left" }, linked("environment", { id: row.name }, row.id)),
    el("td", { class: "left" }, row.source), el("td", { class: "left" }, row.description)))))];

views.environment = () => {
  const splits = Object.keys(data.splits);
  const about = splits.map((split) => `${data.sizes[split].toLocaleString("en")} ${split} tasks`).join(", ");
  const stage = el("div", { id: "stage", "aria-live": "polite" });
  const ids = el("datalist", { id: "ids" });
  const task = el("input", { id: "task", list: "ids", size: 28 });
  const split = el("select", { id: "split", onchange: () => choose() }, ...splits.map((name) => el("option", { value: name }, name)));
  const known = () => data.splits[split.value] || [];
  const another = () => { task.value = known()[Math.floor(Math.random() * known().length)]; return open(); };
  const open = () => played(stage, task.value, []);
  const choose = () => { ids.replaceChildren(...known().map((id) => el("option", { value: id }))); task.value = known()[0]; return open(); };
  const form = el("form", { class: "filters", onsubmit: (event) => { event.preventDefault(); open(); } },
    field("split", split), field("task", task), ids, el("button", {}, "Open"), el("button", { type: "button", onclick: another }, "Another"));
  if (splits.length && data.playable) choose();
  return [
    el("p", {}, about, data.turns > 1 ? `, at most ${data.turns} turns` : "", data.rules ? [" · "] : "", data.rules ? linked("rules", { id: data.env }, `${data.rules} rules, drawn`) : ""),
    data.notes.length ? listed(...data.notes) : null,
    data.playable ? section("Play by hand", form, stage) : el("p", {}, "Its episodes cannot be played again from the start, so they are not played here."),
  ];
};
async function played(stage, task, actions) {
  const got = await asked("play.json", { id: data.env, task, actions });
  if (got.error) { stage.replaceChildren(el("p", { class: "tag bad" }, got.error)); return; }
  const answer = el("textarea", { id: "action", rows: 4 });
  const send = (event) => { event.preventDefault(); played(stage, task, [...actions, answer.value]).then(() => document.getElementById("action")?.focus()); };
  stage.replaceChildren(
    ...got.messages.map((message) => el("div", { class: `turn ${message.role}` }, el("small", {}, message.role), el("pre", {}, message.text))),
    ...(got.tools.length ? [tools(got.tools)] : []),
    ...(got.over ? outcome(got, () => played(stage, task, [])) : [el("form", { onsubmit: send }, field("your answer", answer), el("button", {}, "Answer"))]));
}
const tools = (list) => fold("tools", `${list.length} tools; a call is <tool_call>{"name": …, "arguments": {…}}</tool_call>`,
  () => [el("pre", {}, list.map((tool) => JSON.stringify(tool.function || tool, null, 1)).join("\n"))]);
function outcome(got, again) {
  const good = got.score === null ? null : got.score >= 1;
  const parts = [...Object.entries(got.parts).map(([name, value]) => `${name} ${number(value, 2)}`), ...got.mistakes];
  return [
    el("div", { class: `verdict ${tone(good)}`, id: "score" }, el("b", {}, got.score === null ? "not scored" : `score ${number(got.score, 2)}`), el("p", {}, parts.join(" · "))),
    got.fields && !good ? answerTable(got.fields, "you wrote") : null,
    got.right.length && !got.fields ? el("div", {}, el("h3", {}, "A right episode"), el("pre", {}, got.right.join("\n"))) : null,
    got.rules.length ? el("div", {}, el("h3", {}, "Rules that this case hits"), listed(...got.rules)) : null,
    Object.keys(got.evidence).length ? fold("evidence", "What the verifier saw", () => [facts(Object.entries(got.evidence))]) : null,
    el("p", {}, el("button", { onclick: again }, "Again")),
  ].filter((part) => part);
}

views.rules = () => {
  const note = el("p", { class: "dim", "aria-live": "polite" }, "Sampling cases, to see which rules they hit …");
  covered(note);
  return [
    el("p", {}, linked("environment", { id: data.env }, "play this environment")), note,
    section("Graph", scrolled("graph of decisions", graph())),
    ...data.nodes.filter((node) => node.rules.length || node.expressions.length).map(nodeTable),
  ];
};
async function covered(note) {
  const got = await asked(`coverage.json?${new URLSearchParams({ id: data.env })}`);
  if (got.error) { note.textContent = got.error; return; }
  note.textContent = `${got.hit} of ${got.rules} rules hit by ${got.cases.toLocaleString("en")} sampled cases${got.refused ? `; ${got.refused} cases refused: ${got.refusal}` : ""}`;
  for (const cell of document.querySelectorAll("[data-rule]")) {
    const hits = got.hits[cell.dataset.rule] || 0;
    cell.textContent = hits ? hits.toLocaleString("en") : "none";
    if (!hits) cell.classList.add("tag", "bad");
  }
  for (const box of document.querySelectorAll("[data-node]")) {
    const rules = data.nodes.find((node) => node.id === box.dataset.node).rules;
    if (rules.length) box.textContent = `${rules.filter((rule) => got.hits[rule.id]).length} of ${rules.length} rules hit`;
  }
}
function nodeTable(node) {
  const heads = ["rule", "sampled cases", ...data.splits.map((split) => `${split} tasks`), "finding"];
  const rows = node.rules.map((rule) => el("tr", {}, el("th", { scope: "row", class: "left" }, rule.text), el("td", { "data-rule": rule.id }, "…"),
    ...rule.tasks.map((count) => el("td", { class: count ? "" : "dim" }, String(count))), el("td", { class: rule.faults.length ? "left tag bad" : "left" }, rule.faults.join("; "))));
  const part = section(`${node.name} · ${node.kind}`, node.expressions.length ? el("pre", { class: "card" }, node.expressions.join("\n")) : null,
    rows.length ? scrolled(node.name, el("table", {}, el("tr", {}, ...heads.map((name) => el("th", { scope: "col", class: "left" }, name))), ...rows)) : null);
  part.id = `node-${node.id}`;
  return part;
}
function graph() { // layers from left to right, by the longest way to a node
  const [W, H, GAP_X, GAP_Y] = [190, 50, 60, 20];
  const layers = [];
  for (const node of data.nodes) (layers[node.layer] ||= []).push(node);
  const most = Math.max(...layers.map((layer) => layer.length));
  const place = {};
  layers.forEach((layer, x) => layer.forEach((node, y) => {
    place[node.id] = [x * (W + GAP_X) + 2, (y + (most - layer.length) / 2) * (H + GAP_Y) + 2];
  }));
  const [width, height] = [layers.length * (W + GAP_X) - GAP_X + 4, most * (H + GAP_Y) - GAP_Y + 4];
  const edges = data.edges.filter(([from, to]) => place[from] && place[to]).map(([from, to]) => {
    const [[x1, y1], [x2, y2]] = [place[from], place[to]];
    const [a, b] = [x1 + W, x2];
    return svg("path", { class: "edge", d: `M${a},${y1 + H / 2} C${a + 30},${y1 + H / 2} ${b - 30},${y2 + H / 2} ${b},${y2 + H / 2}` });
  });
  const boxes = data.nodes.map((node) => {
    const [x, y] = place[node.id];
    const inside = [svg("rect", { class: "node", x, y, width: W, height: H, rx: 6 }),
      svg("text", { class: "name", x: x + 10, y: y + 21 }, node.name.length > 25 ? `${node.name.slice(0, 24)}…` : node.name),
      svg("text", { x: x + 10, y: y + 38, "data-node": node.id }, node.rules.length ? `${node.kind}, ${node.rules.length} rules` : node.kind)];
    return node.rules.length || node.expressions.length ? svg("a", { href: `#node-${node.id}` }, ...inside) : svg("g", {}, ...inside);
  });
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, style: `max-width:${width}px; min-width:${0.7 * width}px`, role: "group", "aria-label": "graph of decisions" }, ...edges, ...boxes);
}
