// The explorer of answers: filters, a list of which only what is seen exists, and the chosen answer.
// Answers, references and reasons are hostile: they reach the document as text nodes alone.

(() => {
  const list = document.getElementById("list");
  if (!list) return;
  const rows = document.getElementById("rows");
  const detail = document.getElementById("detail");
  const told = document.getElementById("told");
  const filters = document.getElementById("filters");
  const help = document.getElementById("help");
  const heads = [...document.querySelectorAll(".heads button")];
  const HEIGHT = 56, SPARE = 6, NOTABLE = 5;

  const state = { split: null, before: null, shown: [], chosen: 0, sort: "place", down: false, change: null };
  const field = (name) => filters.elements[name];
  const judge = () => Number(field("judge").value);
  const score = () => field("score").value;

  function make(tag, settings = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(settings)) {
      if (name === "class") node.className = value;
      else node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  }

  const one = (value) => (value === value ? value.toFixed(1) : "–");
  const signed = (value) => (value === value ? `${value > 0 ? "+" : value < 0 ? "−" : "±"}${Math.abs(value).toFixed(1)}` : "");
  const trend = (value) => (value >= NOTABLE ? "up" : value <= -NOTABLE ? "down" : "");
  const line = (text) => text.slice(0, 300).replace(/\s+/g, " ").trim();

  // Filter and sort

  function filter() {
    const { split } = state;
    const values = split.mean(score(), judge());
    const low = Number(field("low").value || 0), high = Number(field("high").value || 100);
    const narrowed = low > 0 || high < 100;
    const unscored = field("unscored").checked, change = field("change").value;
    const text = field("text").value.trim();
    const having = text ? split.having(text) : null;
    const slice = split.slice(field("slice").value);
    const found = [];
    for (let answer = 0; answer < split.count; answer++) {
      if (narrowed && !(values[answer] >= low && values[answer] <= high)) continue;
      if (slice && !slice[answer]) continue;
      if (having && !having[answer]) continue;
      if (change && !matches(change, state.change[answer])) continue;
      if (unscored && !split.hasUnscored(answer, judge())) continue;
      found.push(answer);
    }
    state.shown = sorted(found);
    summarise(values);
  }

  function matches(wanted, change) {
    if (wanted === "up") return change >= NOTABLE;
    if (wanted === "down") return change <= -NOTABLE;
    return Math.abs(change) < NOTABLE;
  }

  function sorted(found) {
    const { split, sort, down } = state;
    if (sort === "place") return down ? found.reverse() : found;
    if (sort === "text") {
      const texts = new Map(found.map((answer) => [answer, line(split.textTexts.at(answer))]));
      found.sort((a, b) => (texts.get(a) < texts.get(b) ? -1 : texts.get(a) > texts.get(b) ? 1 : a - b));
      return down ? found.reverse() : found;
    }
    const values = sort === "change" ? state.change : split.mean(sort, judge());
    const known = (answer) => values[answer] === values[answer];
    return found.sort((a, b) => {
      if (!known(a) || !known(b)) return known(b) - known(a) || a - b;
      return (down ? values[b] - values[a] : values[a] - values[b]) || a - b;
    });
  }

  // The mean of what is shown, and how far prompts lie apart: what was picked by its scores is no sample, and has no
  // interval. Answers to one prompt go together.
  function summarise(values) {
    const groups = new Map();
    let total = 0, count = 0;
    for (const answer of state.shown) {
      if (!(values[answer] === values[answer])) continue;
      const prompt = state.split.prompt[answer];
      const group = groups.get(prompt) ?? [0, 0];
      group[0] += values[answer];
      group[1] += 1;
      groups.set(prompt, group);
      total += values[answer];
      count += 1;
    }
    const all = state.split.count.toLocaleString("en");
    let text = `${state.shown.length.toLocaleString("en")} of ${all} answers`;
    if (count) {
      const means = [...groups.values()].map(([sum, n]) => sum / n), many = means.length;
      const middle = means.reduce((sum, one) => sum + one, 0) / many;
      text += `; mean ${score()} ${(total / count).toFixed(1)}`;
      if (many > 1) {
        const spread = means.reduce((sum, one) => sum + (one - middle) ** 2, 0);
        text += ` (SD between prompts ${Math.sqrt(spread / (many - 1)).toFixed(1)})`;
      }
      text += `, n = ${many.toLocaleString("en")} prompts, ${count.toLocaleString("en")} answers`;
    } else if (!state.split.judged) text += "; not judged yet";
    told.textContent = text;
  }

  // The list

  function draw() {
    const { shown } = state;
    rows.style.height = `${shown.length * HEIGHT}px`;
    const first = Math.max(0, Math.floor(list.scrollTop / HEIGHT) - SPARE);
    const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / HEIGHT) + SPARE);
    const made = [];
    for (let place = first; place < last; place++) made.push(row(place));
    rows.replaceChildren(...made);
    const seen = state.chosen >= first && state.chosen < last && shown.length;
    if (seen) list.setAttribute("aria-activedescendant", `row-${state.chosen}`);
    else list.removeAttribute("aria-activedescendant");
  }

  function row(place) {
    const { split, shown } = state, answer = shown[place];
    const [precision, similarity] = ["precision", "similarity"].map((name) => split.mean(name, judge())[answer]);
    const change = state.change[answer];
    const words = make("span", { class: "words" },
      make("span", { class: "answer" }, line(split.textTexts.at(answer)) || finish(answer)),
      make("span", { class: "prompt" }, line(split.promptsTexts.at(split.prompt[answer]))));
    const lost = split.judged && split.hasUnscored(answer, judge());
    const node = make("div", {
      class: "row", role: "option", id: `row-${place}`, "aria-selected": String(place === state.chosen),
      "aria-posinset": place + 1, "aria-setsize": shown.length,
    },
    make("span", { class: "number faint" }, String(answer + 1)),
    make("span", { class: "number" }, one(precision)),
    make("span", { class: "number" }, one(similarity)),
    make("span", { class: `number ${trend(change)}` }, signed(change), lost ? make("span", { class: "lost", title: "has unscored verdicts" }, " !") : ""),
    words);
    node.style.top = `${place * HEIGHT}px`;
    node.addEventListener("click", () => choose(place));
    return node;
  }

  const finish = (answer) => `(${state.split.finishesTexts.at(state.split.finish[answer]).replaceAll("_", " ")}: no text)`;

  function choose(place) {
    state.chosen = Math.max(0, Math.min(place, state.shown.length - 1));
    const top = state.chosen * HEIGHT;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + HEIGHT > list.scrollTop + list.clientHeight) list.scrollTop = top + HEIGHT - list.clientHeight;
    draw();
    describe();
  }

  // The chosen answer

  function describe() {
    const { split, shown } = state;
    if (!shown.length) {
      detail.replaceChildren(make("p", { class: "none" }, "No answer fits these filters."));
      return;
    }
    const answer = shown[state.chosen];
    const group = split.siblings.get(split.prompt[answer]);
    detail.replaceChildren(
      make("h3", {}, `Prompt ${split.idTexts.at(split.prompt[answer])}`),
      block("Prompt", split.promptsTexts.at(split.prompt[answer])),
      block("Reference", split.referencesTexts.at(split.reference[answer]), "reference"),
      make("h4", {}, group.length > 1 ? `${group.length} answers` : "Answer"),
      ...group.map((other) => card(other, other === answer)),
      split.judged ? verdicts(answer) : make("p", { class: "none" }, "No judge has seen it yet."));
    detail.scrollTop = 0;
  }

  const block = (name, text, kind = "") => make("section", { class: "block" }, make("h4", {}, name), make("pre", { class: kind }, text));

  function card(answer, chosen) {
    const { split } = state;
    const scores = ["precision", "similarity"].map((name) => `${name} ${one(split.mean(name, judge())[answer])}`).join(", ");
    const end = split.finishesTexts.at(split.finish[answer]).replaceAll("_", " ");
    const button = make("button", { type: "button", "aria-pressed": String(chosen) }, `Answer ${split.sample[answer] + 1}`);
    button.addEventListener("click", () => {
      const place = state.shown.indexOf(answer);
      if (place >= 0) choose(place);
      else told.textContent = "That answer does not fit the filters; reset them to choose it.";
    });
    return make("section", { class: chosen ? "card chosen" : "card" },
      make("p", { class: "faint" }, button, ` ${scores} · ${split.tokens[answer]} tokens, ended by ${end}`),
      make("pre", {}, split.textTexts.at(answer)));
  }

  function verdicts(answer) {
    const { split } = state, body = make("tbody");
    split.judges.forEach((name, member) => {
      for (let repeat = 0; repeat < split.repeats; repeat++) body.append(verdict(answer, name, member, repeat));
    });
    const head = make("thead", {}, make("tr", {}, ...["Judge", "Precision", "Similarity", "Reasons"].map((text) => make("th", { scope: "col" }, text))));
    return make("div", { class: "wide" }, make("table", { class: "verdicts" }, make("caption", {}, "Verdicts"), head, body));
  }

  function verdict(answer, name, member, repeat) {
    const { split } = state, at = split.at(answer, member, repeat);
    const who = make("th", { scope: "row" }, split.repeats > 1 ? `${name} · ${repeat + 1}` : name);
    const said = (kind) => (split.said[kind][at] < 0 ? "" : split.words[kind].at(split.said[kind][at]));
    if (split.unscored[at] >= 0) {
      const why = make("td", { colspan: 2, class: "lost" }, `unscored: ${split.whyTexts.at(split.unscored[at]).replaceAll("_", " ")}`);
      return make("tr", {}, who, why, make("td", { class: "reasons" }, said("unscored")));
    }
    const reasons = make("td", { class: "reasons" });
    for (const kind of ["precision", "similarity"]) {
      if (said(kind)) reasons.append(make("p", {}, make("span", { class: "faint" }, `${kind}: `), said(kind)));
    }
    const numbers = ["precision", "similarity"].map((kind) => make("td", { class: "number" }, one(split.scores[kind][at])));
    return make("tr", {}, who, ...numbers, reasons);
  }

  // What happens when

  function renew() {
    const answer = state.shown[state.chosen];
    filter();
    state.chosen = Math.max(0, state.shown.indexOf(answer));
    list.scrollTop = Math.max(0, (state.chosen - 2) * HEIGHT);
    draw();
    describe();
  }

  async function open() {
    const option = field("section").selectedOptions[0];
    try {
      const split = await Answers.open(option.value);
      if (!option.selected) return; // another split was asked for meanwhile
      show(split, option);
      const before = option.dataset.before ? await drawn().then(() => Answers.open(option.dataset.before)) : null;
      if (!option.selected) return;
      state.before = before;
      if (before) { compare(); renew(); }
      list.dataset.ready = option.value;
      warm(split);
    } catch (error) {
      told.textContent = `The answers can't be unpacked (${error.message}); a browser of 2023 or later can.`;
    }
  }

  const drawn = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));

  // Show a split; what changed since the one before follows when that is unpacked.
  function show(split, option) {
    Object.assign(state, { split, before: null });
    const chosen = field("judge").selectedOptions[0]?.textContent;
    // Where judges saw different answers there is no mean over all of them.
    const all = field("judge").dataset.apart ? [] : [make("option", { value: -1 }, "all")];
    field("judge").replaceChildren(...all, ...state.split.judges.map((name, at) => make("option", { value: at }, name)));
    field("judge").value = state.split.judges.indexOf(chosen);
    if (field("judge").selectedIndex < 0) field("judge").selectedIndex = 0;
    offerSlices(split);
    field("change").disabled = !option.dataset.before;
    if (!option.dataset.before) field("change").value = "";
    compare();
    state.chosen = 0;
    renew();
  }

  // A slice that the split has too stays chosen.
  function offerSlices(split) {
    const select = field("slice"), chosen = select.value;
    const groups = split.slices.map(([name, found]) =>
      make("optgroup", { label: name }, ...found.map(({ key, label }) => make("option", { value: key }, label))));
    select.replaceChildren(make("option", { value: "" }, "all"), ...groups);
    select.value = split.slice(chosen) ? chosen : "";
    select.disabled = !groups.length;
  }

  // Fold texts for the search while nobody waits.
  function warm(split) {
    const later = window.requestIdleCallback ?? ((work) => setTimeout(work, 200));
    const tables = [split.promptsTexts, split.referencesTexts, split.textTexts, ...Object.values(split.words)];
    const next = () => { tables.shift()?.having("\u0000"); if (tables.length) later(next); };
    later(next);
  }

  function compare() {
    state.change = state.split.change(score(), judge(), state.before);
  }

  function order(button) {
    const name = button.dataset.sort;
    state.down = state.sort === name ? !state.down : name !== "place" && name !== "text";
    state.sort = name;
    for (const other of heads) other.removeAttribute("data-order");
    button.dataset.order = state.down ? "down" : "up";
    button.setAttribute("aria-description", state.down ? "sorted, highest first" : "sorted, lowest first");
    renew();
    choose(0);
  }

  function step(by) {
    const select = field("section");
    const place = select.selectedIndex + by;
    if (place < 0 || place >= select.options.length) return;
    select.selectedIndex = place;
    open();
  }

  const page = () => Math.max(1, Math.floor(list.clientHeight / HEIGHT) - 1);
  const moves = {
    j: () => choose(state.chosen + 1), ArrowDown: () => choose(state.chosen + 1),
    k: () => choose(state.chosen - 1), ArrowUp: () => choose(state.chosen - 1),
    PageDown: () => choose(state.chosen + page()), PageUp: () => choose(state.chosen - page()),
    Home: () => choose(0), End: () => choose(state.shown.length - 1),
  };
  const commands = {
    "/": () => field("text").focus(), "?": () => help.showModal(), "[": () => step(-1), "]": () => step(1),
    u: () => { field("unscored").checked = !field("unscored").checked; renew(); }, Escape: () => list.focus(),
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || help.open || !state.split) return;
    const typing = event.target.matches("input, select, textarea");
    const scrolls = event.key.length > 1 && event.key !== "Escape";
    if (typing && event.key !== "Escape") return;
    if (scrolls && !list.contains(event.target)) return;
    const act = moves[event.key] ?? commands[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });

  filters.addEventListener("input", (event) => {
    if (event.target.name === "section") { open(); return; }
    if (event.target.name === "judge" || event.target.name === "score") compare();
    renew();
  });
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("reset", () => setTimeout(open));
  document.getElementById("keys").addEventListener("click", () => help.showModal());
  heads.forEach((button) => button.addEventListener("click", () => order(button)));
  list.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
  new ResizeObserver(() => state.split && draw()).observe(list);

  // The page is drawn first; the answers are unpacked behind it.
  requestAnimationFrame(() => setTimeout(open));
})();
