"use strict";
// Colours as the system has them, light or dark; and tables that sort.

(() => {
  const button = document.getElementById("theme");
  const themes = ["system", "light", "dark"];
  const stored = () => { try { return localStorage.getItem("llamaduo-theme"); } catch { return null; } };
  let theme = themes.includes(stored()) ? stored() : "system";

  const show = () => {
    document.documentElement.dataset.theme = theme;
    button.textContent = `Colours: ${theme}`;
  };

  button.addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    try { localStorage.setItem("llamaduo-theme", theme); } catch { /* a page without storage forgets it */ }
    show();
  });
  show();
})();

(() => {
  const number = (cell) => (cell.dataset.value === undefined ? null : Number(cell.dataset.value));

  // What isn't known goes last, whichever way is sorted; equals keep their order.
  function sort(table, column, descending) {
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => {
      const cell = row.cells[column];
      return { row, number: number(cell), text: cell.textContent.trim() };
    });
    const numbers = rows.some((entry) => entry.number !== null);
    const unknown = (entry) => (numbers ? entry.number === null : entry.text === "");
    rows.sort((a, b) => {
      if (unknown(a) || unknown(b)) return unknown(a) - unknown(b);
      const order = numbers ? a.number - b.number : a.text.localeCompare(b.text, "en", { numeric: true });
      return descending ? -order : order;
    });
    body.append(...rows.map((entry) => entry.row));
    return numbers;
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort");
        const numbers = [...table.tBodies[0].rows].some((row) => number(row.cells[column]) !== null);
        const descending = now ? now === "ascending" : numbers;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", descending ? "descending" : "ascending");
        sort(table, column, descending);
      });
    });
  }
})();
