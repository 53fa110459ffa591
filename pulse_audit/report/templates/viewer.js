"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  // A link opens the fold that it leads to.
  const unfold = () => {
    const target = $(decodeURIComponent(location.hash.slice(1)));
    if (target && target.matches("details:not(#viewer)")) target.open = true;
  };
  addEventListener("hashchange", unfold);
  unfold();
  const root = $("viewer");
  if (!root) return;
  const parts = new Map(), waiting = new Map();
  let data = null, matches = [], at = 0;

  // A part calls this with its number and its rows or pictures.
  window.pulseAuditPart = (number, content) => {
    parts.set(number, content);
    (waiting.get(number) || []).forEach((ready) => ready(content));
  };
  const load = (number) => new Promise((ready, failed) => {
    if (parts.has(number)) return ready(parts.get(number));
    waiting.set(number, [...(waiting.get(number) || []), ready]);
    if (waiting.get(number).length > 1) return;
    const script = document.createElement("script");
    script.src = `data/part-${String(number).padStart(3, "0")}.js`;
    script.onerror = () => { waiting.delete(number); failed(new Error(script.src)); };
    document.head.append(script);
  });

  // Elements are made of text alone: nothing of a run is read as markup.
  const make = (name, properties, ...inner) => {
    const element = Object.assign(document.createElement(name), properties || {});
    element.append(...inner.filter((x) => x !== null && x !== undefined));
    return element;
  };
  const options = (select, values, first) => {
    select.replaceChildren(make("option", { value: "", textContent: first }),
      ...values.map((v) => make("option", { value: v, textContent: v })));
  };
  const unique = (values) => [...new Set(values)];
  const value = (id) => $(id).value;
  const percent = (p) => `${Math.round(100 * p)} %`;

  const draws = (card) => card.draws.filter((d) =>
    (!value("f-arm") || d.arm === value("f-arm")) && (!value("f-status") || d.status === value("f-status")));
  const worst = (card, title) => {
    const found = draws(card).map((d) => d.metrics[title]).filter((x) => x !== null && x !== undefined);
    if (!found.length) return -Infinity;
    const better = data.metrics[title];
    return better === "higher" ? -Math.min(...found)
      : Math.max(...found.map((x) => (better === "nearer 0" ? Math.abs(x) : x)));
  };
  const changes = (card) => draws(card).filter((d) => d.changed.includes("→")).length;

  const filter = () => {
    const grouping = value("f-grouping"), group = value("f-group"), order = value("f-order");
    matches = data.cards.filter((card) =>
      (!group || card.group[grouping] === group) &&
      (!value("f-condition") || `${card.condition} ×${card.scale}` === value("f-condition")) &&
      (!$("f-changed").checked || changes(card)) && draws(card).length);
    const key = order === "shift" ? (c) => c.shift ?? -1
      : order === "changed" ? changes
      : order ? (c) => worst(c, order) : null;
    if (key) matches = matches.map((c, i) => [key(c), i, c])
      .sort((a, b) => (b[0] > a[0]) - (b[0] < a[0]) || a[1] - b[1]).map((x) => x[2]);
    $("v-list").replaceChildren(...matches.map((card, i) => {
      const button = make("button", { type: "button", onclick: () => show(i) },
        make("span", { textContent: card.face }),
        make("small", { textContent: `${Object.values(card.group)[0] || ""} · ${card.condition} ×${card.scale}` +
          (card.shift === null ? "" : ` · shift ${card.shift.toFixed(2)}`) }));
      return make("li", {}, button);
    }));
    show(0);
  };

  const figure = (picture, alt, ...below) => make("figure", { className: "shot" },
    picture ? make("img", { src: picture[0], alt, className: picture[1] ? "face pixels" : "face" })
      : make("span", { className: "blank", role: "img", ariaLabel: `${alt}: no image` }),
    make("figcaption", {}, ...below));
  const line = (text, className) => make("span", { textContent: text, className: className || "" });
  const bars = (side) => Object.entries(side.p).map(([attribute, p]) => {
    const words = data.vocabulary[attribute] || [];
    const best = p.map((x, i) => [x, words[i] || String(i)]).sort((a, b) => b[0] - a[0]).slice(0, 3);
    return make("span", { className: "bars", title: p.map((x, i) => `${words[i] || i} ${percent(x)}`).join(", ") },
      ...best.map(([x, word]) => { const bar = make("i"); bar.style.width = `${100 * x}%`;
        return make("span", {}, bar, line(`${word} ${percent(x)}`)); }));
  });

  const show = async (number) => {
    at = Math.max(0, Math.min(number, matches.length - 1));
    const card = matches[at];
    $("v-place").textContent = matches.length ? `${at + 1} of ${matches.length}` : "no face matches";
    [...$("v-list").children].forEach((li, i) => {
      if (i === at) li.firstChild.setAttribute("aria-current", "true");
      else li.firstChild.removeAttribute("aria-current");
    });
    if (!card) return $("v-card").replaceChildren();
    const item = $("v-list").children[at];
    $("v-list").scrollTop = item.offsetTop - $("v-list").offsetTop - 80;
    const images = await load(card.part).catch(() => null);
    if (matches[at] !== card) return;
    const pictures = images ? images[card.place] : [];
    const shown = draws(card);
    const heading = make("h3", { textContent: card.face });
    const group = make("p", { className: "muted", textContent:
      Object.entries(card.group).map(([name, word]) => `${name}: ${word}`).join(" · ") +
      ` · ${card.condition} ×${card.scale}` });
    const inputs = make("div", { className: "shots" },
      figure(pictures[0], `original ${card.face}`, line("original", "arm"), ...bars(card)),
      figure(pictures[1], `input of ${card.face}`, line("input", "arm")));
    const outputs = make("div", { className: "shots" }, ...shown.map((d) => {
      const i = card.draws.indexOf(d) + 2;
      const state = d.changed.includes("→") ? "changed" : d.status === "ok" ? "kept" : "lost";
      const numbers = Object.entries(d.metrics).filter((x) => x[1] !== null);
      return figure(pictures[i], `output of ${d.arm}, draw ${d.draw}`,
        line(d.arm, "arm"), line(d.changed || "no apparent group", state), ...bars(d),
        line(`draw ${d.draw} · ${d.status}${d.reason ? `: ${d.reason}` : ""}`),
        make("details", {}, make("summary", { textContent: "numbers" }),
          make("dl", {}, ...numbers.concat([["seed", d.seed]]).flatMap(([name, x]) =>
            [make("dt", { textContent: name }), make("dd", { textContent: String(x) })]))));
    }));
    $("v-card").replaceChildren(heading, group, inputs, outputs);
  };

  const groups = () => options($("f-group"),
    unique(data.cards.map((c) => c.group[value("f-grouping")])).filter(Boolean), "every group");
  const open = async () => {
    if (data) return;
    try { data = await load(0); } catch {
      $("v-place").textContent = "data/part-000.js is missing beside this page"; return;
    }
    const all = data.cards.flatMap((c) => c.draws);
    $("f-grouping").replaceChildren(...Object.keys(data.cards[0]?.group || {})
      .map((v) => make("option", { value: v, textContent: v })));
    options($("f-arm"), unique(all.map((d) => d.arm)), "every arm");
    options($("f-status"), unique(all.map((d) => d.status)), "every status");
    options($("f-condition"), unique(data.cards.map((c) => `${c.condition} ×${c.scale}`)), "every condition");
    $("f-order").append(...Object.keys(data.metrics)
      .map((v) => make("option", { value: v, textContent: `worst ${v}` })));
    groups();
    filter();
  };
  $("f-grouping").addEventListener("change", groups);
  $("v-filters").addEventListener("change", filter);
  $("v-filters").addEventListener("submit", (event) => event.preventDefault());
  $("v-back").onclick = () => show(at - 1);
  $("v-on").onclick = () => show(at + 1);
  root.addEventListener("toggle", () => root.open && open());
  if (root.open || location.hash === "#viewer") { root.open = true; open(); }
  addEventListener("keydown", (event) => {
    if (!root.open || !data || event.ctrlKey || event.metaKey || event.altKey) return;
    if (/^(SELECT|INPUT)$/.test(event.target.tagName) && event.key !== "Escape") return;
    const step = { ArrowRight: 1, j: 1, ArrowLeft: -1, k: -1 }[event.key];
    if (step) show(at + step);
    else if (event.key === "Home") show(0);
    else if (event.key === "End") show(matches.length - 1);
    else if (event.key === "/") $("f-group").focus();
    else if (event.key === "Escape") event.target.blur();
    else return;
    event.preventDefault();
  });
  // Folds are open on paper.
  addEventListener("beforeprint", () => document.querySelectorAll("details:not(#viewer):not([open])")
    .forEach((fold) => { fold.open = true; fold.dataset.printed = ""; }));
  addEventListener("afterprint", () => document.querySelectorAll("details[data-printed]")
    .forEach((fold) => { fold.open = false; delete fold.dataset.printed; }));
})();
