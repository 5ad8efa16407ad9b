"use strict";
// Draws the cards of the images that the filters choose, a page of them at a time.
const CARDS = 40;
const data = JSON.parse(document.getElementById("data").textContent);
const field = (name) => document.getElementById(name);
const titles = Object.fromEntries(data.pictures);
let chosen = [];

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  Object.assign(made, attributes);
  made.append(...children);
  return made;
}

function addOptions(select, options) {
  for (const [value, text] of options) select.append(element("option", { value, textContent: text }));
}

function kindTitle(threat, kind) {
  if (!threat.attacks) return kind === "stands" ? "right" : "wrong";
  const words = { stands: "right under attack", wrong: "wrong before any attack", broken: "broken" };
  return words[kind] ?? `broken ${kind}`;
}

function countBy(values) {
  const counts = new Map();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return [...counts].sort(([a], [b]) => (a < b ? -1 : 1));
}

function fillFilters() {
  const counted = (pairs) => pairs.map(([value, number]) => [value, `${value} (${number})`]);
  addOptions(field("truth"), counted(countBy(data.images.map((one) => one.truth))));
  addOptions(field("split"), counted(countBy(data.images.map((one) => one.drawn.split))));
  for (const threat of data.threats) {
    const group = element("optgroup", { label: threat.title });
    addOptions(group, kindsOf(data.images, threat.name).map(({ kind, images }) =>
      [JSON.stringify([threat.name, kind]), `${kindTitle(threat, kind)} (${images})`]));
    if (group.children.length) field("outcome").append(group);
  }
  const measured = ["pseudo", "parts", "attacked_parts"].map((name) =>
    [name, data.images.filter((one) => name in one.drawn.iou).length]).filter(([, number]) => number);
  addOptions(field("measure"), measured.map(([name, number]) =>
    [name, `${titles[name]} (${number})`]));
  if (!measured.length) field("quality").hidden = true;
}

function wanted() {
  const [threat, kind] = field("outcome").value ? JSON.parse(field("outcome").value) : ["", ""];
  return {
    text: field("text").value, truth: field("truth").value, split: field("split").value,
    threat, kind, measure: field("measure").value, most: Number(field("most").value),
    order: field("order").value,
  };
}

function picture(image, name) {
  const { drawn, truth } = image;
  const cell = element("div", {}, element("div", { className: "head", textContent: titles[name] }));
  const file = drawn.pictures[name];
  if (file) {
    const alt = `${drawn.key}, ${titles[name]}`;
    const made = element("img", { loading: "lazy", decoding: "async", width: 224, height: 224, alt });
    made.src = file;
    cell.append(made);
  } else {
    const missing = { human: "not annotated", pseudo: "no label" };
    cell.append(element("div", { className: "hole", textContent: missing[name] ?? "no part map" }));
  }
  const answer = { image: drawn.clean, attacked: drawn.attacked }[name];
  if (answer !== undefined) {
    const className = `legend ${answer === truth ? "right" : "wrong"}`;
    cell.append(element("div", { className, textContent: answer }));
  }
  if (name in drawn.iou) {
    const iou = drawn.iou[name].toFixed(2);
    cell.append(element("div", { className: "legend soft", textContent: `IoU ${iou}` }));
  }
  if (name === "pseudo" && drawn.labelled_by === "this page") {
    cell.append(element("div", { className: "legend soft", textContent: "for this page" }));
  }
  return cell;
}

function outcomeLine(image) {
  const line = element("div", { className: "chips" });
  for (const threat of data.threats) {
    const outcome = image.outcomes[threat.name];
    if (!outcome) continue;
    const kind = ["stands", "wrong"].find((one) => isKind(outcome, one)) ?? `by ${outcome.broken_by}`;
    const answer = threat.attacks ? outcome.attacked : outcome.clean;
    line.append(element("span", {}, `${threat.title}: `, element("b", {
      className: kind === "stands" ? "right" : "wrong",
      textContent: kindTitle(threat, kind) + (kind === "stands" ? "" : `, ${answer}`),
    })));
  }
  return line;
}

function card(image) {
  const { drawn, truth } = image;
  const legend = element("div", { className: "legend" });
  for (const [name, colour] of drawn.legend) {
    const swatch = element("i", { className: "swatch" });
    if (colour) swatch.style.background = colour;
    legend.append(element("span", {}, ...(colour ? [swatch] : []), name));
  }
  const key = element("code", { textContent: drawn.key });
  const about = `${truth}${drawn.split === "train" ? ", a train image" : ""}`;
  return element("article", { className: "row" },
    element("div", { className: "key" }, key, " ", element("span", { className: "soft", textContent: about })),
    outcomeLine(image),
    element("div", { className: "six" }, ...data.pictures.map(([name]) => picture(image, name))),
    legend);
}

function showMore() {
  const shown = field("cards").children.length;
  field("cards").append(...chosen.slice(shown, shown + CARDS).map(card));
  field("more").hidden = field("cards").children.length >= chosen.length;
}

function update() {
  const now = wanted();
  chosen = choose(data.images, now);
  field("most_value").textContent = now.most >= 1 ? "any" : `at most ${now.most.toFixed(2)}`;
  field("count").textContent = `${chosen.length} of ${data.images.length} images`;
  field("cards").replaceChildren();
  showMore();
}

fillFilters();
field("filters").addEventListener("input", update);
field("filters").addEventListener("submit", (event) => event.preventDefault());
field("filters").addEventListener("reset", () => setTimeout(update));
field("more").addEventListener("click", showMore);
update();
