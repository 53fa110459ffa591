"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const kit = JSON.parse($("kit").textContent);
  let rater = "", answers = {}, order = [], at = 0;

  // Elements are made of text alone: nothing of a run is read as markup.
  const make = (name, properties, ...inner) => {
    const element = Object.assign(document.createElement(name), properties || {});
    element.append(...inner);
    return element;
  };

  // Answers of a rater, kept in this browser; where that is not allowed, in this page alone.
  const place = (name) => `rating ${kit.kit} ${name}`;
  const stored = (name) => {
    try {
      const kept = JSON.parse(localStorage.getItem(place(name)) || "{}");
      return kept && typeof kept === "object" ? kept : {};
    } catch { $("warning").hidden = false; return {}; }
  };
  const keep = () => {
    try { localStorage.setItem(place(rater), JSON.stringify(answers)); } catch { $("warning").hidden = false; }
  };

  // Every rater meets the items of each task in an order of their own.
  const ordered = (name) => kit.tasks.flatMap((task, number) =>
    task.orders[name].map((i) => ({ task, number, ...task.items[i] })));
  const allowed = (item, answer) => item.task.choices.some((c) => c.value === answer);
  const done = () => order.filter((item) => allowed(item, answers[item.id])).length;

  const showState = () => {
    rater = $("rater").value;
    answers = stored(rater);
    order = ordered(rater);
    const count = done();
    $("state").textContent = count ? `${count} of ${order.length} questions are answered.` : `${order.length} questions.`;
    $("begin").textContent = count ? "Go on" : "Begin";
  };

  const picture = (index, alt, caption) => {
    const { uri, pixels } = kit.pictures[index];
    return make("figure", {}, make("img", { src: uri, alt, className: pixels ? "pixels" : "" }),
      ...(caption ? [make("figcaption", { textContent: caption })] : []));
  };

  const show = (index) => {
    at = index;
    const over = at >= order.length;
    $("start").hidden = true;
    $("bar").hidden = false;
    $("rate").hidden = over;
    $("end").hidden = !over;
    $("back").disabled = at === 0;
    $("save").className = over ? "main" : "";
    $("progress").max = order.length;
    $("progress").value = done();
    $("place").textContent = `${done()} of ${order.length} answered`;
    if (over) { $("end-title").focus(); return; }
    const item = order[at], task = item.task;
    $("part").textContent = `Part ${item.number + 1} of ${kit.tasks.length}. ${task.advice}`;
    $("question").textContent = task.question;
    $("legend").textContent = task.question;
    $("pictures").className = item.pictures.length > 1 ? "three" : "";
    $("pictures").replaceChildren(...item.pictures.map((p, i) => picture(p, task.alts[i], task.captions[i])));
    $("choices").replaceChildren($("legend"), ...task.choices.map((choice) => {
      const button = make("button", { type: "button", onclick: () => answer(choice.value) },
        ...(choice.key ? [make("kbd", { textContent: choice.shown })] : []), choice.label);
      button.setAttribute("aria-pressed", String(answers[item.id] === choice.value));
      return button;
    }));
    $("question").focus({ preventScroll: true });
  };

  const answer = (value) => {
    answers[order[at].id] = value;
    keep();
    // The next question that has no answer; after the last one, whatever was passed over.
    const open = (item) => !allowed(item, answers[item.id]);
    const next = order.findIndex((item, i) => i > at && open(item));
    const passed = order.findIndex(open);
    show(next >= 0 ? next : passed >= 0 ? passed : order.length);
  };

  // One row for each answer; what a spreadsheet would run as a formula gets an apostrophe.
  const cell = (text) => {
    const plain = /^[=+\-@]/.test(text) ? `'${text}` : text;
    return /[",\r\n]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
  };
  const csv = () => [["kit", "rater", "task", "item", "answer"],
    ...order.filter((item) => allowed(item, answers[item.id])).sort((a, b) => (a.id < b.id ? -1 : 1))
      .map((item) => [kit.kit, rater, item.task.name, item.id, answers[item.id]])]
    .map((row) => row.map(cell).join(",") + "\r\n").join("");
  const save = () => {
    const link = make("a", {
      href: URL.createObjectURL(new Blob([csv()], { type: "text/csv" })),
      download: `ratings_${kit.kit}_${rater.replaceAll(" ", "-")}.csv`,
    });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };

  document.addEventListener("keydown", (event) => {
    // A key that is held down answers one question.
    if (event.ctrlKey || event.altKey || event.metaKey || event.repeat || $("bar").hidden) return;
    if (event.key === "b" || event.key === "Backspace") { event.preventDefault(); if (at > 0) show(at - 1); return; }
    if ($("rate").hidden) return;
    const choice = order[at].task.choices.find((c) => c.key.includes(event.key));
    if (choice) { event.preventDefault(); answer(choice.value); }
  });
  $("rater").append(...kit.raters.map((name) => make("option", { value: name, textContent: name })));
  $("rater").onchange = showState;
  $("begin").onclick = () => {
    const first = order.findIndex((item) => !allowed(item, answers[item.id]));
    show(first < 0 ? order.length : first);
  };
  $("back").onclick = () => show(at - 1);
  $("save").onclick = save;
  // For tests, and for a rater whose browser saves no files.
  window.ratingAnswers = csv;
  showState();
})();
