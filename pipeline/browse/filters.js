"use strict";
// What is shown of all images: no function here touches the page, so that they can be tested alone.
const KINDS = ["stands", "wrong", "broken"];

// Whether a recorded outcome is of a kind: one of KINDS, or the name of an attack behind "by ".
function isKind(outcome, kind) {
  if (outcome === undefined) return false;
  if (kind === "stands") return outcome.broken_by === "";
  if (kind === "wrong") return outcome.broken_by === "clean";
  if (kind === "broken") return outcome.broken_by !== "" && outcome.broken_by !== "clean";
  return kind === `by ${outcome.broken_by}`;
}

// Kinds of outcome that a threat left, with the number of images of each.
function kindsOf(images, threat) {
  const outcomes = images.map((image) => image.outcomes[threat]).filter((one) => one);
  const attacks = new Set(outcomes.filter((one) => isKind(one, "broken")).map((one) => one.broken_by));
  return [...KINDS, ...[...attacks].sort().map((name) => `by ${name}`)]
    .map((kind) => ({ kind, images: outcomes.filter((one) => isKind(one, kind)).length }))
    .filter((one) => one.images > 0);
}

// wanted: text, truth, split, threat and kind (empty: any), measure and most (1: any).
function matches(image, wanted) {
  const { key, split, iou } = image.drawn;
  if (!key.toLowerCase().includes(wanted.text.trim().toLowerCase())) return false;
  if (wanted.truth && image.truth !== wanted.truth) return false;
  if (wanted.split && split !== wanted.split) return false;
  if (wanted.kind && !isKind(image.outcomes[wanted.threat], wanted.kind)) return false;
  return wanted.most >= 1 || (wanted.measure in iou && iou[wanted.measure] <= wanted.most);
}

// The images to show, in their order or by quality, the lowest first and those without last.
function choose(images, wanted) {
  const chosen = images.filter((image) => matches(image, wanted));
  if (wanted.order === "name") {
    return chosen.sort((a, b) => (a.drawn.key < b.drawn.key ? -1 : Number(a.drawn.key > b.drawn.key)));
  }
  if (wanted.order !== "iou") return chosen;
  const value = (image) => image.drawn.iou[wanted.measure] ?? 2;
  return chosen.sort((a, b) => value(a) - value(b));
}

if (typeof module !== "undefined") module.exports = { choose, isKind, kindsOf, matches };
