"use strict";

// Charts: plotly draws what Python described; colours of text and grid follow the page.
const plots = [...document.querySelectorAll(".plot")];
const onPaper = { text: "#000", muted: "#444", line: "#ccc", paper: "#fff" };

function colours() {
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries(Object.keys(onPaper).map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

function dress(plot, { text, muted, line, paper }, size = { autosize: true }) {
  const changes = {
    "font.family": getComputedStyle(document.body).fontFamily,
    "font.color": muted,
    "hoverlabel.bgcolor": paper,
    "hoverlabel.bordercolor": line,
    "hoverlabel.font.color": text,
  };
  for (const axis of ["xaxis", "yaxis"]) changes[`${axis}.gridcolor`] = changes[`${axis}.linecolor`] = line;
  Plotly.relayout(plot, { ...changes, ...size });
}

for (const plot of plots) {
  const { data, layout } = JSON.parse(plot.nextElementSibling.textContent);
  Plotly.newPlot(plot, data, layout, { displayModeBar: false, responsive: true });
  dress(plot, colours());
}

// A legend shows or hides methods in all charts of its part, and in the other legends there.
function show(article, numbers, visible) {
  for (const button of article.querySelectorAll(".legend [data-number]")) {
    if (numbers.has(Number(button.dataset.number))) button.setAttribute("aria-pressed", visible);
  }
  for (const plot of article.querySelectorAll(".plot")) {
    const traces = plot.data.flatMap((trace, index) => (numbers.has(trace.meta) ? [index] : []));
    if (traces.length) Plotly.restyle(plot, { visible }, traces);
  }
  for (const all of article.querySelectorAll(".legend .all")) {
    all.textContent = all.parentElement.querySelector('[aria-pressed="true"]') ? "Hide all" : "Show all";
  }
}

for (const button of document.querySelectorAll(".legend button")) {
  button.addEventListener("click", () => {
    const article = button.closest("article");
    const every = [...article.querySelectorAll(".legend [data-number]")].map((other) => Number(other.dataset.number));
    if (button.matches(".all")) show(article, new Set(every), button.textContent === "Show all");
    else show(article, new Set([Number(button.dataset.number)]), button.getAttribute("aria-pressed") !== "true");
  });
}

// A heading sorts its column, the best first, then the other way round; cells without a value stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  const body = table.tBodies[table.tBodies.length - 1];
  headings.forEach((heading, column) => {
    heading.firstElementChild.addEventListener("click", () => {
      const before = heading.getAttribute("aria-sort");
      const ascending = (before || heading.dataset.first) === (before ? "descending" : "ascending");
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const value = (row) => row.cells[column].dataset.value;
      const order = (a, b) => (column === 0 ? a.localeCompare(b) : a - b);
      const rows = [...body.rows].sort((a, b) => {
        if (value(a) === "" || value(b) === "") return (value(a) === "") - (value(b) === "");
        return order(value(a), value(b)) * (ascending ? 1 : -1);
      });
      body.append(...rows);
    });
  });
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plots.forEach((plot) => dress(plot, colours())));

// Paper is white, as wide as two small charts, and cannot be clicked: folds are open on it.
addEventListener("beforeprint", () => {
  for (const fold of document.querySelectorAll("details:not([open])")) {
    fold.dataset.printed = "";
    fold.open = true;
  }
  for (const plot of plots) dress(plot, onPaper, { width: plot.closest("figure").matches(".wide") ? 660 : 320 });
});
addEventListener("afterprint", () => {
  for (const fold of document.querySelectorAll("details[data-printed]")) {
    delete fold.dataset.printed;
    fold.open = false;
  }
  plots.forEach((plot) => dress(plot, colours()));
});
