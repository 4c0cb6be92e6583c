// Rollouts to search: by outcome, rule, kind of mistake, slice and text.

const RULE = "rule=";
const ruleText = (slice) => (slice.startsWith(RULE) ? (data.rule_texts || {})[slice.slice(RULE.length)] || slice.slice(RULE.length) : slice);
function counted(names) { // the names that rows have, most rollouts first
  const counts = new Map();
  for (const row of data.rollouts) for (const name of names(row)) counts.set(name, (counts.get(name) || 0) + (row.count || 1));
  return [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).slice(0, 500);
}
function byRule(row) { // beside a rule of the table: its rollouts
  const slice = [...new Set(data.rollouts.flatMap((one) => one.slices))].find((name) => name.startsWith(RULE) && ruleText(name) === row[0]);
  const show = () => {
    state.rule = slice;
    document.getElementById("answers").remove(); // so that it is drawn anew, though a rollout is open
    draw();
    document.getElementById("answers").scrollIntoView();
    document.getElementById("by-rule").focus();
  };
  return slice ? el("button", { class: "small", onclick: show, "aria-label": `show rollouts of: ${row[0]}` }, "show") : null;
}
const kindOf = (row) => (row.score === null ? "not scored" : row.outcome || (row.score >= 1 ? "right" : "wrong"));
function matching() {
  const wanted = state.text.toLowerCase();
  return data.rollouts.filter((row) =>
    (!state.outcome || kindOf(row) === state.outcome || (state.outcome === "right" && row.score >= 1) || (state.outcome === "wrong" && row.score !== null && row.score < 1)) &&
    [state.rule, state.slice].every((slice) => !slice || row.slices.includes(slice)) &&
    (!state.mistake || row.mistakes.includes(state.mistake)) &&
    (!wanted || row.task.toLowerCase().includes(wanted) || row.messages.some((message) => message.text.toLowerCase().includes(wanted))));
}
function browser() {
  const list = el("div", { id: "rollouts" });
  const count = el("span", { class: "dim", id: "count", "aria-live": "polite" });
  const fill = () => {
    const rows = matching();
    const held = data.rollouts.reduce((sum, row) => sum + (row.count || 1), 0);
    const part = held < data.rollouts_in_all ? `; the page holds ${held} of ${data.rollouts_in_all}` : "";
    count.textContent = `${rows.reduce((sum, row) => sum + (row.count || 1), 0)} rollouts${part}`;
    list.replaceChildren(...rows.slice(0, state.shown).map(rollout),
      ...(rows.length > state.shown ? [el("button", { onclick: () => { state.shown += STEP; fill(); } }, `${rows.length - state.shown} more`)] : []));
  };
  const choose = (name, options, title) => el("select", { id: `by-${name}`, title, "aria-label": title, onchange: (event) => { state[name] = event.target.value; state.shown = STEP; fill(); } },
    ...options.map(([value, label]) => el("option", { value, selected: state[name] === value ? "" : null }, label)));
  const outcomes = ["right", "wrong", "won", "lost", "not scored"].filter((kind) => data.rollouts.some((row) => kindOf(row) === kind || (kind === "right" && row.score >= 1) || (kind === "wrong" && row.score !== null && row.score < 1)));
  const slices = counted((row) => row.slices);
  const [rules, others] = [true, false].map((wanted) => slices.filter(([name]) => name.startsWith(RULE) === wanted));
  const kinds = counted((row) => row.mistakes);
  const colours = ["log-prob", "advantage", "nothing", ...(data.rollouts.some((row) => row.stream) ? ["loss mask"] : [])];
  fill();
  return el("div", { class: "card" }, el("div", { class: "filters" },
    choose("outcome", [["", "every outcome"], ...outcomes.map((kind) => [kind, kind])], "outcome"),
    rules.length ? choose("rule", [["", "every rule"], ...rules.map(([name, count]) => [name, `${ruleText(name)} (${count})`])], "rule") : null,
    kinds.length ? choose("mistake", [["", "every kind of mistake"], ...kinds.map(([name, count]) => [name, `${name} (${count})`])], "kind of mistake") : null,
    others.length ? choose("slice", [["", "every slice"], ...others.map(([name, count]) => [name, `${name} (${count})`])], "slice") : null,
    choose("colour", colours.map((name) => [name, `colour: ${name}`]), "token colours"),
    el("input", { type: "search", placeholder: "search", "aria-label": "search in rollouts", value: state.text, oninput: (event) => { state.text = event.target.value; state.shown = STEP; fill(); } }),
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
  const notes = [...Object.entries(row.parts).map(([name, value]) => `${name} ${number(value, 2)}`), ...row.mistakes, ...row.slices.map(ruleText)];
  if (row.advantage !== null) notes.unshift(`advantage ${number(row.advantage, 2)}`);
  const head = el("p", { class: "dim" }, notes.join(" · "));
  if (state.colour === "loss mask" && row.stream) return [head, ...row.stream.map(stream)];
  return [head, row.fields ? answerTable(row.fields) : null, ...row.messages.map((message) =>
    el("div", { class: `turn ${message.role}` }, el("small", {}, message.role), text(message, row),
      ...(message.tools || []).map((call) => el("pre", {}, `call ${JSON.stringify(call.function || call, null, 1)}`))))];
}
function answerTable(fields, who = "the model wrote") { // the right answer beside the model's: what differs, and how much is the same
  const differing = fields.filter((field) => !field.same);
  const cell = (value) => el("td", { class: "left" }, value === null ? el("span", { class: "dim" }, "not there") : value);
  const same = fields.length - differing.length;
  return el("div", { class: "scroll answer", tabindex: 0, role: "group", "aria-label": "the answer beside the right one" }, el("table", {},
    el("tr", {}, el("td"), el("th", { class: "left" }, who), el("th", { class: "left" }, "right is")),
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
