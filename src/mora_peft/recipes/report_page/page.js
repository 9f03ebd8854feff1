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

// The legend of a section shows or hides a method in all charts of that section.
for (const button of document.querySelectorAll(".legend button")) {
  button.addEventListener("click", () => {
    const visible = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", visible);
    for (const plot of button.closest("section").querySelectorAll(".plot")) {
      const traces = plot.data.flatMap((trace, index) => (trace.meta === Number(button.dataset.number) ? [index] : []));
      if (traces.length) Plotly.restyle(plot, { visible }, traces);
    }
  });
}

// A heading sorts its column: numbers from the top first, text from A; cells without a value stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    heading.firstElementChild.addEventListener("click", () => {
      const before = heading.getAttribute("aria-sort");
      const ascending = before ? before === "descending" : column === 0;
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const value = (row) => row.cells[column].dataset.value;
      const order = (a, b) => (column === 0 ? a.localeCompare(b) : a - b);
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        if (value(a) === "" || value(b) === "") return (value(a) === "") - (value(b) === "");
        return order(value(a), value(b)) * (ascending ? 1 : -1);
      });
      table.tBodies[0].append(...rows);
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
